package main

import (
	"log/slog"
	"reflect"
	"testing"

	"sluice/providers/router/discover"
)

// Each kind of list is read where it is, with what is configured for it.
func TestDiscoverySources(t *testing.T) {
	d := newDiscovery(slog.New(slog.DiscardHandler))
	for from, want := range map[string]discover.Source{
		"dns": discover.DNS{}, "srv": discover.DNS{}, "file": discover.File{}, "consul": discover.Consul{}, "etcd": discover.Etcd{}, "register": discover.NewLeases(),
	} {
		got := d.source("up", &Discovery{From: from, Name: "name", File: "file", URL: "http://url", Tag: "tag", Server: "server:53", Interval: second, Timeout: minute})
		if reflect.TypeOf(got) != reflect.TypeOf(want) {
			t.Errorf("%s: %T", from, got)
		}
		switch s := got.(type) {
		case discover.DNS:
			if s != (discover.DNS{Name: "name", Services: from == "srv", Server: "server:53", Every: second.Std(), Timeout: minute.Std()}) {
				t.Errorf("%s: %+v", from, s)
			}
		case discover.Consul:
			if s.URL != "http://url" || s.Service != "name" || s.Tag != "tag" || s.Client == nil {
				t.Errorf("%+v", s)
			}
		case discover.Etcd:
			if s.URL != "http://url" || s.Prefix != "name" || s.Client == nil {
				t.Errorf("%+v", s)
			}
		}
	}
}

// A list in the place of an upstream: all that named it names its servers.
func TestDiscoveryExpand(t *testing.T) {
	d := newDiscovery(slog.New(slog.DiscardHandler))
	c := &Config{Upstreams: []Upstream{{Name: "one", BaseURL: "http://one/v1"}, {Name: "gpus", BaseURL: "http://gpus:8000/v1", Discovery: Discovery{From: "file"}}}}
	c.Models = []Model{{Name: "m", Targets: []Target{{Upstream: "one", Weight: 1}, {Upstream: "gpus", Model: "large", Weight: 2}}}}
	empty := d.expand(c)
	if u := empty.Upstreams[1]; u.Name != "gpus" || !u.Drained || len(empty.Models[0].Targets) != 2 {
		t.Errorf("an empty list: %+v", u)
	}
	d.lists["gpus"] = &serverList{members: []discover.Member{{Address: "10.0.0.1", Weight: 3}, {Address: "10.0.0.2:9000", Weight: 1, Priority: 1, Drained: true}, {Address: "fd00::1", Weight: 1}}}
	full := d.expand(c)
	want := []struct {
		name, url string
		drained   bool
	}{{"one", "http://one/v1", false}, {"gpus@10.0.0.1", "http://10.0.0.1:8000/v1", false}, {"gpus@10.0.0.2:9000", "http://10.0.0.2:9000/v1", true}, {"gpus@fd00::1", "http://[fd00::1]:8000/v1", false}}
	if len(full.Upstreams) != len(want) {
		t.Fatalf("%+v", full.Upstreams)
	}
	for i, w := range want {
		if u := full.Upstreams[i]; u.Name != w.name || u.BaseURL != w.url || u.Drained != w.drained || u.Discovery.From != "" {
			t.Errorf("%+v, want %+v", u, w)
		}
	}
	targets := full.Models[0].Targets
	if len(targets) != 4 || targets[1].Weight != 6 || targets[1].Model != "large" || targets[2].Priority != 1 || targets[2].Upstream != "gpus@10.0.0.2:9000" {
		t.Errorf("%+v", targets)
	}
	if len(c.Upstreams) != 2 || len(c.Models[0].Targets) != 2 {
		t.Errorf("the configuration itself has changed: %+v", c)
	}
	if at("https://gpus/v1", "10.0.0.1") != "https://10.0.0.1/v1" || at("https://gpus/v1", "fd00::1") != "https://[fd00::1]/v1" {
		t.Error("a base URL without a port")
	}
}
