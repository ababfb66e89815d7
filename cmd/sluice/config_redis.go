package main

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"net/url"
	"strings"
)

// Redis is the [redis] section.
type Redis struct {
	URL          Secret   `toml:"url" doc:"One server: \"redis://host:6379/0\", \"rediss://\" for TLS, \"unix:///path\". \"\" with no addresses: limits are counted in this process."`
	Addresses    []string `toml:"addresses" doc:"Or some members of a Redis Cluster, host:port; or the Sentinels, with master."`
	Master       string   `toml:"master" doc:"Name of the master that the Sentinels at addresses watch."`
	Username     string   `toml:"username" doc:"Name of an ACL user; \"\" is the default one."`
	Password     Secret   `toml:"password" group:"password" doc:"Its password."`
	PasswordFile string   `toml:"password_file" group:"password" example:"\"secrets/redis.key\"" doc:"Or a file that holds it."`
	SentinelPass Secret   `toml:"sentinel_password" group:"sentinel_password" doc:"Password of the Sentinels themselves."`
	SentinelFile string   `toml:"sentinel_password_file" group:"sentinel_password" example:"\"secrets/sentinel.key\"" doc:"Or a file that holds it."`
	TLS          bool     `toml:"tls" doc:"Whether addresses are spoken to over TLS."`
	TLSCA        string   `toml:"tls_ca" doc:"Certificates in PEM that the server's must descend from; \"\" is the system's."`
	Prefix       string   `toml:"prefix" doc:"What the names of all keys begin with; the same at all gateways that share limits."`
	Timeout      Duration `toml:"timeout" min:"1ms" max:"10s" doc:"One question to Redis. A slower one is trouble: see on_trouble."`
	Lease        Duration `toml:"lease" min:"1s" max:"10m" doc:"How long the answers of a gateway that is silent stay reserved; the same at all gateways that share limits."`
	Gateways     int      `toml:"gateways" min:"1" max:"10000" doc:"How many gateways share the limits, at least: in trouble each has that part of them. More are counted in Redis."`
	PoolSize     int      `toml:"pool_size" min:"0" max:"10000" doc:"Connections to each server; 0 is ten for each processor."`

	roots *x509.CertPool // of TLSCA
}

// Data is the [data] section.
type Data struct {
	Dir          string `toml:"dir" doc:"Directory for what outlives the process: usage records, and settlements that Redis has not taken yet. \"\" keeps them in memory."`
	UsageRecords int    `toml:"usage_records" min:"100" max:"1000000" doc:"Usage records that are kept, one for each answer; with Redis, of each organisation. Older ones go."`
	UsageDays    int    `toml:"usage_days" min:"32" max:"400" doc:"Days for which usage records and their hourly sums are kept; at least a month, so that its budget can be summed up."`
}

func (r *Redis) setDefaults() {
	*r = Redis{
		URL: newSecret(""), Addresses: []string{}, Password: newSecret(""), SentinelPass: newSecret(""),
		Prefix: "sluice:", Timeout: 50 * ms, Lease: 30 * second, Gateways: 1,
	}
}

func (d *Data) setDefaults() { *d = Data{UsageRecords: 10_000, UsageDays: 90} }

// configured tells whether limits are shared over Redis.
func (r *Redis) configured() bool { return r.URL.Reveal() != "" || len(r.Addresses) > 0 }

func (d *decoder) readRedisSecrets(r *Redis) {
	d.exclusive("redis", r.Password.Reveal() != "", "password", r.PasswordFile != "", "password_file")
	d.secretFile("redis.password_file", r.PasswordFile, &r.Password)
	d.exclusive("redis", r.SentinelPass.Reveal() != "", "sentinel_password", r.SentinelFile != "", "sentinel_password_file")
	d.secretFile("redis.sentinel_password_file", r.SentinelFile, &r.SentinelPass)
}

func (d *decoder) validateRedis(r *Redis) {
	if text := r.URL.Reveal(); text != "" {
		d.validateRedisURL(text, len(r.Addresses) > 0)
	}
	for i, a := range r.Addresses {
		if host, port, err := net.SplitHostPort(a); err != nil || host == "" || port == "" {
			d.failAt(fmt.Sprintf("redis.addresses[%d]", i), "want host:port, such as redis.example:6379")
		}
	}
	if r.Master != "" && len(r.Addresses) == 0 {
		d.failAt("redis.master", "the addresses of its Sentinels are missing")
	}
	if len(r.Prefix) > 64 || strings.ContainsAny(r.Prefix, "{}") || strings.ContainsFunc(r.Prefix, notHeaderSafe) {
		d.failAt("redis.prefix", "want up to 64 visible ASCII characters other than braces")
	}
	if r.TLSCA = d.resolveSet("redis.tls_ca", r.TLSCA); r.TLSCA != "" {
		pem, err := d.readFile("redis.tls_ca", r.TLSCA, maxCertificates)
		if err != nil {
			d.failAt("redis.tls_ca", "cannot read it: %s", reason(err))
			return
		}
		if r.roots = x509.NewCertPool(); !r.roots.AppendCertsFromPEM(pem) {
			d.failAt("redis.tls_ca", "there is no certificate in it")
		}
	}
}

func (d *decoder) validateRedisURL(text string, addresses bool) {
	u, err := url.Parse(text)
	switch {
	case addresses:
		d.failAt("redis.addresses", "url and addresses are both given; keep one")
	case err != nil || u.Scheme != "redis" && u.Scheme != "rediss" && u.Scheme != "unix" || u.Scheme != "unix" && u.Hostname() == "":
		d.failAt("redis.url", "want a URL such as redis://redis.example:6379/0 (redis, rediss or unix)")
	case u.RawQuery != "":
		d.failAt("redis.url", "give options as keys of [redis], not in the URL")
	}
}

// maxCertificates bounds a file of certificates.
const maxCertificates = 1 << 20

// tlsConfig is nil when the servers are spoken to in the clear.
func (r *Redis) tlsConfig() *tls.Config {
	if !r.TLS && !strings.HasPrefix(r.URL.Reveal(), "rediss://") {
		return nil
	}
	return &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: r.roots}
}
