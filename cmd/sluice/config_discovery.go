package main

import (
	"net"
	"net/url"
	"strings"
)

// Discovery is where the servers of an upstream are listed.
type Discovery struct {
	From      string   `toml:"from" oneof:",dns,srv,file,consul,etcd,register" doc:"Where the servers are listed that the upstream stands for, each of which is a target then (docs/routing.md): \"dns\" all addresses of name, \"srv\" its SRV records, \"file\", \"consul\" the passing instances of the service name, \"etcd\" the keys below the prefix name, \"register\" servers that register themselves. \"\": it is one server, that of base_url"`
	Name      string   `toml:"name" example:"\"vllm.models.svc.cluster.local\"" doc:"Name of a host, of an SRV record or of a service, or the prefix of keys."`
	File      string   `toml:"file" example:"\"servers.txt\"" doc:"For from = \"file\": one address a line, or a JSON array. It is looked at every second."`
	URL       string   `toml:"url" example:"\"http://127.0.0.1:8500\"" doc:"For \"consul\" and \"etcd\": where its HTTP API is."`
	Tag       string   `toml:"tag" doc:"For \"consul\": a tag that instances must have."`
	Token     Secret   `toml:"token" group:"token" example:"\"${CONSUL_TOKEN:-}\"" doc:"For \"consul\": its ACL token."`
	TokenFile string   `toml:"token_file" group:"token" example:"\"secrets/consul.token\"" doc:"Or a file that holds it."`
	Server    string   `toml:"server" example:"\"10.0.0.10:53\"" doc:"For \"dns\" and \"srv\": the name server to ask, instead of the system's."`
	Interval  Duration `toml:"interval" min:"1s" doc:"For \"dns\" and \"srv\": how often the name is resolved."`
	Timeout   Duration `toml:"timeout" min:"10ms" doc:"A resolution that takes longer has failed; then the list stays as it was."`
}

func (d *Discovery) setDefaults() { *d = Discovery{Interval: 30 * second, Timeout: 5 * second} }

func (d *decoder) validateDiscovery(at string, u *Upstream) {
	v := &u.Discovery
	at += ".discovery"
	d.exclusive(at, v.Token.IsSet(), "token", v.TokenFile != "", "token_file")
	d.secretFile(at+".token_file", v.TokenFile, &v.Token)
	v.File = d.resolveSet(at+".file", v.File)
	switch {
	case v.From == "":
		return
	case v.From == "file" && v.File == "":
		d.failAt(at+".file", "name the file that lists the servers")
	case v.From != "file" && v.From != "register" && v.Name == "":
		d.failAt(at+".name", "say what is to be looked for")
	case v.From == "consul" || v.From == "etcd":
		if w, err := url.Parse(v.URL); err != nil || w.Scheme != "http" && w.Scheme != "https" || w.Host == "" {
			d.failAt(at+".url", "want the address of its HTTP API, such as http://127.0.0.1:8500")
		}
	}
	if strings.ContainsFunc(v.Token.Reveal(), notHeaderSafe) {
		d.failAt(givenAs(at, "token", v.TokenFile), "a token has no spaces, control or non-ASCII characters")
	}
	if v.Server != "" {
		if host, port, err := net.SplitHostPort(v.Server); err != nil || host == "" || port == "" {
			d.failAt(at+".server", "want host:port of a name server")
		}
	}
}
