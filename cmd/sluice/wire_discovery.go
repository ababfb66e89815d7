package main

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"slices"
	"sync"
	"time"

	"sluice/providers/router/discover"
)

// discovery follows the lists of servers of all upstreams that have one. What is found is put
// in force as a configuration is: by another generation, so that nothing that runs notices.
type discovery struct {
	log     *slog.Logger
	changed chan struct{} // some list is another one
	watches sync.WaitGroup

	mu     sync.Mutex
	lists  map[string]*serverList // by upstream
	leases map[string]*discover.Leases
}

// serverList is the list of one upstream.
type serverList struct {
	from    Discovery
	stop    context.CancelFunc
	read    chan struct{} // closed when it has been read, or could not be
	members []discover.Member
	failing error
}

func newDiscovery(log *slog.Logger) *discovery {
	return &discovery{log: log, changed: make(chan struct{}, 1), lists: map[string]*serverList{}, leases: map[string]*discover.Leases{}}
}

// follow follows what a configuration names, and nothing else. A list that is looked for in
// another place keeps its members until it has been read there.
func (d *discovery) follow(c *Config) {
	d.mu.Lock()
	defer d.mu.Unlock()
	wanted := map[string]bool{}
	for i := range c.Upstreams {
		u := &c.Upstreams[i]
		if u.Discovery.From == "" {
			continue
		}
		wanted[u.Name] = true
		old := d.lists[u.Name]
		if old != nil && old.from == u.Discovery {
			continue
		}
		list := &serverList{from: u.Discovery, read: make(chan struct{})}
		if old != nil {
			old.stop()
			list.members = old.members
		}
		d.lists[u.Name] = list
		d.start(u.Name, list)
	}
	for name, list := range d.lists {
		if !wanted[name] {
			list.stop()
			delete(d.lists, name)
			delete(d.leases, name)
		}
	}
}

// start watches a list, under d.mu.
func (d *discovery) start(upstream string, list *serverList) {
	ctx, cancel := context.WithCancel(context.Background())
	list.stop = cancel // its goroutine may be waiting for d.mu
	source := d.source(upstream, &list.from)
	first := sync.OnceFunc(func() { close(list.read) })
	d.watches.Go(func() {
		source.Watch(ctx, func(members []discover.Member, err error) {
			d.tell(ctx, upstream, list, members, err)
			first()
		})
	})
}

// source is where a list is read, under d.mu.
func (d *discovery) source(upstream string, v *Discovery) discover.Source {
	switch v.From {
	case "file":
		return discover.File{Path: v.File}
	case "consul":
		return discover.Consul{URL: v.URL, Service: v.Name, Tag: v.Tag, Token: v.Token.Reveal(), Client: directoryClient()}
	case "etcd":
		return discover.Etcd{URL: v.URL, Prefix: v.Name, Client: directoryClient()}
	case "register":
		if d.leases[upstream] == nil {
			d.leases[upstream] = discover.NewLeases()
		}
		return d.leases[upstream]
	default:
		return discover.DNS{Name: v.Name, Services: v.From == "srv", Server: v.Server, Every: v.Interval.Std(), Timeout: v.Timeout.Std()}
	}
}

// directoryClient asks for lists. Questions that wait for a change bound themselves.
func directoryClient() *http.Client {
	return &http.Client{Transport: &http.Transport{
		DialContext: (&net.Dialer{Timeout: 5 * time.Second}).DialContext, TLSHandshakeTimeout: 5 * time.Second,
		MaxIdleConnsPerHost: 1, IdleConnTimeout: time.Minute,
	}}
}

// tell takes what was read. A list that cannot be read stays as it was.
func (d *discovery) tell(ctx context.Context, upstream string, list *serverList, members []discover.Member, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	switch {
	case ctx.Err() != nil:
		return
	case err != nil:
		if list.failing == nil {
			d.log.Warn("the list of servers cannot be read; it stays as it was", slog.String("upstream", upstream), slog.Int("servers", len(list.members)), slog.Any("error", err))
		}
		list.failing = err
		return
	case list.failing != nil:
		d.log.Info("the list of servers can be read again", slog.String("upstream", upstream))
		list.failing = nil
	}
	if !slices.Equal(list.members, members) {
		d.log.Info("servers", slog.String("upstream", upstream), slog.Int("before", len(list.members)), slog.Int("now", len(members)))
		list.members = slices.Clone(members)
		nudge(d.changed)
	}
}

// await waits until each list has been read, or could not be, for a while.
func (d *discovery) await(most time.Duration) {
	d.mu.Lock()
	var all []chan struct{}
	for _, list := range d.lists {
		all = append(all, list.read)
	}
	d.mu.Unlock()
	late := time.NewTimer(most)
	defer late.Stop()
	for _, read := range all {
		select {
		case <-read:
		case <-late.C:
			return
		}
	}
}

// close follows no list any more, and waits until that is so.
func (d *discovery) close() {
	d.follow(&Config{})
	d.watches.Wait()
}

// count is how many servers are listed, and how many lists cannot be read.
func (d *discovery) count() (servers, failing int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, list := range d.lists {
		servers += len(list.members)
		if list.failing != nil {
			failing++
		}
	}
	return servers, failing
}

// expand is a configuration in which each server of a list is an upstream of its own, and a
// target wherever the upstream that stands for it was one. An upstream whose list is empty
// stays, drained: its models are known, and take no requests.
func (d *discovery) expand(c *Config) *Config {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !slices.ContainsFunc(c.Upstreams, func(u Upstream) bool { return u.Discovery.From != "" }) {
		return c
	}
	out := *c
	out.Upstreams, out.Models = nil, slices.Clone(c.Models)
	found := map[string][]found{}
	for i := range c.Upstreams {
		u := &c.Upstreams[i]
		if u.Discovery.From == "" {
			out.Upstreams = append(out.Upstreams, *u)
			continue
		}
		some := d.servers(u)
		if len(some) == 0 {
			empty := *u
			empty.Drained, empty.Health, empty.ListModels = true, "", false
			out.Upstreams = append(out.Upstreams, empty)
			continue
		}
		found[u.Name] = some
		for j := range some {
			out.Upstreams = append(out.Upstreams, some[j].Upstream)
		}
	}
	for i := range out.Models {
		out.Models[i].Targets = spread(out.Models[i].Targets, found)
	}
	return &out
}

// found is a server with the upstream that it is.
type found struct {
	Upstream
	discover.Member
}

// servers are the members of an upstream's list, under d.mu.
func (d *discovery) servers(u *Upstream) (all []found) {
	list := d.lists[u.Name]
	if list == nil {
		return nil
	}
	for _, m := range list.members {
		one := *u
		one.Name, one.BaseURL = u.Name+"@"+m.Address, at(u.BaseURL, m.Address)
		one.Discovery = Discovery{}
		one.Drained = u.Drained || m.Drained
		all = append(all, found{one, m})
	}
	return all
}

// at is a base URL at another host. Without a port in the address its own stands.
func at(base, address string) string {
	u, err := url.Parse(base)
	if err != nil {
		return base // it has been checked
	}
	switch _, _, err := net.SplitHostPort(address); {
	case err == nil:
		u.Host = address
	case u.Port() != "":
		u.Host = net.JoinHostPort(address, u.Port())
	case net.ParseIP(address) != nil && net.ParseIP(address).To4() == nil:
		u.Host = "[" + address + "]"
	default:
		u.Host = address
	}
	return u.String()
}

// spread puts the servers of a list in the place of the target that stands for them.
func spread(targets []Target, by map[string][]found) (out []Target) {
	for _, t := range targets {
		some := by[t.Upstream]
		if some == nil {
			out = append(out, t)
			continue
		}
		for _, f := range some {
			one := t
			one.Upstream = f.Name
			one.Weight, one.Priority = t.Weight*f.Weight, t.Priority+f.Priority
			out = append(out, one)
		}
	}
	return out
}

// discovered puts what has been found in force.
func (r *reloader) discovered() {
	r.mu.Lock()
	defer r.mu.Unlock()
	old := r.newest.Load()
	g, err := r.build(old.cfg, old)
	if err == nil {
		err = r.put(g)
	}
	if err != nil {
		r.log.Error("servers that were found are not in force", slog.Any("error", err))
	}
}

// discoveryTime bounds how long a start waits for lists of servers.
const discoveryTime = 3 * time.Second

// errNotListed is told to a server that registers where no list is kept.
func errNotListed(upstream string) error {
	return fmt.Errorf("there is no upstream %q with discovery.from = \"register\"", upstream)
}
