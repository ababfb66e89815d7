package main

import (
	"context"
	"net"
	"net/url"
	"strconv"
	"strings"
	"sync"

	"github.com/redis/go-redis/v9"

	"sluice/ratelimit"
)

// silent keeps the library's own lines out of the log: the guard of the limits tells of
// trouble once, and of its end.
type silent struct{}

func (silent) Printf(context.Context, string, ...any) {}

var silence = sync.OnceFunc(func() { redis.SetLogger(silent{}) })

// newRedisClient makes the client of [redis], which has been checked. Nothing is dialled yet.
func newRedisClient(r *Redis) redis.UniversalClient {
	silence()
	o := &redis.UniversalOptions{
		Addrs: r.Addresses, MasterName: r.Master, IsClusterMode: len(r.Addresses) > 0 && r.Master == "",
		Username: r.Username, Password: r.Password.Reveal(), SentinelPassword: r.SentinelPass.Reveal(),
		PoolSize: r.PoolSize, TLSConfig: r.tlsConfig(), DisableIdentity: true,
	}
	if text := r.URL.Reveal(); text != "" {
		toURL(o, text)
	}
	ratelimit.TuneRedis(o)
	return redis.NewUniversalClient(o)
}

// toURL takes the server, the database and the credential out of a URL.
func toURL(o *redis.UniversalOptions, text string) {
	u, err := url.Parse(text)
	if err != nil {
		return // it has been checked
	}
	if user := u.User.Username(); user != "" {
		o.Username = user
	}
	if password, ok := u.User.Password(); ok {
		o.Password = password
	}
	if u.Scheme == "unix" {
		o.Addrs = []string{u.Path}
		o.Dialer = func(ctx context.Context, _, path string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", path)
		}
		return
	}
	port := u.Port()
	if port == "" {
		port = "6379"
	}
	o.Addrs = []string{net.JoinHostPort(u.Hostname(), port)}
	o.DB, _ = strconv.Atoi(strings.Trim(u.Path, "/"))
	if o.TLSConfig != nil {
		o.TLSConfig.ServerName = u.Hostname()
	}
}
