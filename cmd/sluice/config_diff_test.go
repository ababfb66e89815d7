package main

import (
	"slices"
	"strings"
	"testing"
)

func TestChangedFrom(t *testing.T) {
	old := mustLoad(t, layered, nil)
	for name, c := range map[string]struct {
		change [2]string
		want   []string
	}{
		"nothing":  {[2]string{"", ""}, nil},
		"a secret": {[2]string{"sk-app", "sk-other"}, []string{"keys.app.key"}},
		"a weight": {[2]string{"weight = 1", "weight = 2"}, []string{`models."gpt-4.1".targets."a.b/x/y-1.5".weight`}},
		"a limit":  {[2]string{"tokens_per_minute = 1000", "tokens_per_minute = 10"}, []string{"limits.per-key.tokens_per_minute"}},
		"order": {[2]string{"[[upstreams]]\nname = \"a.b\"\nbase_url = \"http://127.0.0.1:1\"\n[[upstreams]]\nname = \"c\"\nbase_url = \"http://127.0.0.1:2\"",
			"[[upstreams]]\nname = \"c\"\nbase_url = \"http://127.0.0.1:2\"\n[[upstreams]]\nname = \"a.b\"\nbase_url = \"http://127.0.0.1:1\""}, nil},
	} {
		if got := mustLoad(t, strings.Replace(layered, c.change[0], c.change[1], 1), nil).changedFrom(old); !slices.Equal(got, c.want) {
			t.Errorf("%s: %v", name, got)
		}
	}
	gone := mustLoad(t, strings.Replace(layered, "[[limits]]\nid = \"per-key\"\nscope = \"key\"\ntokens_per_minute = 1000", "", 1), nil).changedFrom(old)
	if !slices.Contains(gone, "limits.per-key.tokens_per_minute") {
		t.Errorf("a limit that is gone: %v", gone)
	}
}

// TestKeepRunning keeps what only a restart changes, with its source.
func TestKeepRunning(t *testing.T) {
	running := mustLoad(t, layered, []string{"SLUICE_SERVER__LISTEN=127.0.0.1:7"})
	next := mustLoad(t, layered+"format = \"json\"\n[server]\nlisten = \"127.0.0.1:9\"\nadmin_listen = \"127.0.0.1:10\"\n[redis]\nprefix = \"x:\"\n[cors]\norigins = []\n", nil)
	got := next.keepRunning(running)
	if want := []string{"server.listen", "server.admin_listen", "log.format", "redis.prefix"}; !slices.Equal(got, want) {
		t.Errorf("to be told: %v, want %v", got, want)
	}
	if next.Server.Listen != "127.0.0.1:7" || next.Log.Format != "text" || next.Redis.Prefix != "sluice:" || len(next.CORS.Origins) != 0 || next.Log.Level != "warn" {
		t.Errorf("kept %+v %+v %+v", next.Server, next.Log, next.Redis)
	}
	if got := next.Source("server.listen").String(); got != "env SLUICE_SERVER__LISTEN" {
		t.Errorf("its source is %s", got)
	}
	if got := next.Source("redis.prefix").Origin; got != FromDefault {
		t.Errorf("the source of a default is %v", got)
	}
	if got := mustLoad(t, layered, nil).keepRunning(mustLoad(t, layered, nil)); got != nil {
		t.Errorf("of the same configuration: %v", got)
	}
}
