package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"sluice/providers/providertest/wall"
)

// hostOf is host:port of a wall.
func hostOf(base string) string {
	return strings.TrimSuffix(strings.TrimPrefix(base, "http://"), "/v1")
}

// overList is a configuration with one upstream of many servers.
func overList(discovery string) string {
	return "\n[[upstreams]]\nname = \"gpus\"\nbase_url = \"http://0.0.0.0:1/v1\"\nmodels = [\"unused\"]\nlist_models = false\ndiscovery = { " + discovery + " }\n" +
		"\n[[models]]\nname = \"m\"\nbalance = \"round_robin\"\ntargets = [{ upstream = \"gpus\", model = \"wall:tokens=8\" }]\n" + adminTokens
}

// answeredBy asks until a server has answered.
func answeredBy(t *testing.T, g *gatewayUnderTest, base string) {
	t.Helper()
	g.eventually(t, base+" answers", func() bool {
		a := g.chat(t, "m", "")
		return a.status == http.StatusOK && strings.Contains(a.header.Get("X-Sluice-Target"), "gpus@"+hostOf(base)+"/")
	})
}

// TestDiscoveryFile changes a list while an answer runs: it goes on where it is, and new ones go
// where the list says.
func TestDiscoveryFile(t *testing.T) {
	t.Parallel()
	base1, w1 := wall.Start(t)
	base2, _ := wall.Start(t)
	file := filepath.Join(t.TempDir(), "servers")
	list := func(addresses ...string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(strings.Join(addresses, "\n")), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	list(hostOf(base1))
	g := boot(t, overList(fmt.Sprintf("from = \"file\", file = %q", file)))
	first := g.chat(t, "m", "") // the list was read before the gateway listened
	first.complete(t, 8)
	ctx, leave := context.WithCancel(context.Background())
	defer leave()
	r := g.openStream(ctx, t, prompted("m", "tokens=8 stall=4:1s", "running"))
	defer r.Body.Close()
	list(hostOf(base2))
	answeredBy(t, g, base2)
	awaitCall(t, w1, "running", func(q wall.Request) bool { return q.End == wall.Complete })
	list(hostOf(base1), hostOf(base2))
	answeredBy(t, g, base1)
	answeredBy(t, g, base2)
	fleet := g.admin(t, http.MethodGet, "/targets", "").body
	if !strings.Contains(fleet, "gpus@"+hostOf(base1)) || !strings.Contains(fleet, base1) {
		t.Errorf("the admin API does not tell of the servers: %s", fleet)
	}
	list()
	g.eventually(t, "nobody is left", func() bool { a := g.chat(t, "m", ""); return a.status == http.StatusServiceUnavailable })
	if a := g.chat(t, "m", ""); a.header.Get("Retry-After") == "" {
		t.Errorf("%d without Retry-After", a.status)
	}
	list("http://not an address")
	g.eventually(t, "the list is known to be wrong", func() bool { return g.metric(t, "gateway_discovery_failing") == 1 })
	list(hostOf(base1))
	answeredBy(t, g, base1)
}

// TestDiscoveryRegister lets servers announce themselves, and forget to.
func TestDiscoveryRegister(t *testing.T) {
	t.Parallel()
	base1, _ := wall.Start(t)
	base2, _ := wall.Start(t)
	g := boot(t, overList(`from = "register"`))
	if a := g.chat(t, "m", ""); a.status != http.StatusServiceUnavailable {
		t.Errorf("%d without a server", a.status)
	}
	put := func(id, base string, ttl, want int) {
		t.Helper()
		body := fmt.Sprintf(`{"upstream":"gpus","address":%q,"ttl_seconds":%d}`, hostOf(base), ttl)
		a := g.admin(t, http.MethodPut, "/targets/"+id, body)
		var lease struct{ Server string }
		if err := json.Unmarshal([]byte(a.body), &lease); err != nil || a.status != want || lease.Server != "gpus@"+hostOf(base) {
			t.Fatalf("%d %s", a.status, a.body)
		}
	}
	put("one", base1, 3600, http.StatusCreated)
	put("one", base1, 3600, http.StatusOK)
	answeredBy(t, g, base1)
	put("two", base2, 3600, http.StatusCreated)
	answeredBy(t, g, base2)
	put("two", base2, 5, http.StatusOK)
	drained := func() bool {
		return strings.Contains(g.admin(t, http.MethodGet, "/targets", "").body, `"state":"drained"`)
	}
	g.eventually(t, "the second has not come again", drained)
	for range 4 {
		if a := g.chat(t, "m", ""); !strings.Contains(a.header.Get("X-Sluice-Target"), hostOf(base1)) {
			t.Errorf("asked %s", a.header.Get("X-Sluice-Target"))
		}
	}
	if a := g.admin(t, http.MethodDelete, "/targets/one", ""); a.status != http.StatusNoContent {
		t.Errorf("%d %s", a.status, a.body)
	}
	g.eventually(t, "nobody is left", func() bool { a := g.chat(t, "m", ""); return a.status == http.StatusServiceUnavailable })
	for _, bad := range []string{
		`{"upstream":"nobody","address":"a:1"}`, `{"upstream":"gpus","address":"http://a"}`, `{"upstream":"gpus","address":"a:1","ttl_seconds":1}`,
		`{"upstream":"gpus","address":"a:1","weight":0}`, `{"upstream":"gpus","address":"a:1","more":1}`,
	} {
		if a := g.admin(t, http.MethodPut, "/targets/bad", bad); a.status != http.StatusBadRequest {
			t.Errorf("%s: %d %s", bad, a.status, a.body)
		}
	}
	audit := g.admin(t, http.MethodGet, "/audit", "").body
	if n := strings.Count(audit, `"PUT /targets/{id}"`); n != 2 {
		t.Errorf("%d registrations in the audit log, want 2: %s", n, audit)
	}
}

// TestDiscoveryName follows the addresses of a name.
func TestDiscoveryName(t *testing.T) {
	t.Parallel()
	base, _ := wall.Start(t)
	_, port, _ := net.SplitHostPort(hostOf(base))
	names := &addressServer{}
	names.set(net.IPv4(127, 0, 0, 1))
	text := overList(fmt.Sprintf("from = \"dns\", name = \"gpus.example\", server = %q, interval = \"1s\"", names.serve(t)))
	g := boot(t, strings.Replace(text, "http://0.0.0.0:1/v1", "http://gpus.example:"+port+"/v1", 1))
	a := g.chat(t, "m", "")
	a.complete(t, 8)
	if got := a.header.Get("X-Sluice-Target"); !strings.HasPrefix(got, "gpus@127.0.0.1/") {
		t.Errorf("asked %s", got)
	}
	names.set(net.IPv4(127, 0, 0, 2), net.IPv4(127, 0, 0, 1))
	g.eventually(t, "the second address is a server", func() bool { return g.metric(t, "gateway_discovery_servers") == 2 })
	names.set()
	g.eventually(t, "a name without addresses is a failure", func() bool { return g.metric(t, "gateway_discovery_failing") == 1 })
	b := g.chat(t, "m", "")
	b.complete(t, 8)
}

// TestDiscoveryChecked finds mistakes before anything starts.
func TestDiscoveryChecked(t *testing.T) {
	for wrong, want := range map[string]string{
		`from = "dns"`: "discovery.name", `from = "file"`: "discovery.file", `from = "consul", name = "x"`: "discovery.url",
		`from = "etcd", name = "x", url = "ftp://x"`: "discovery.url", `from = "dns", name = "x", server = "10.0.0.1"`: "discovery.server",
		`from = "zookeeper"`: "discovery.from",
	} {
		_, _, err := loadText(t, overList(wrong), nil)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", wrong, err)
		}
	}
}
