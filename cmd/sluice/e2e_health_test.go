package main

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"sluice/providers/providertest/wall"
)

// TestChecks finds an upstream that dies without a single call of a client, and one that comes
// back, by each way of asking; nobody is told of the checks as if they were calls.
func TestChecks(t *testing.T) {
	t.Parallel()
	for _, way := range []string{"/health", "models", "token"} {
		t.Run(strings.Trim(way, "/"), func(t *testing.T) {
			t.Parallel()
			w := wall.New()
			server, err := wall.Listen("127.0.0.1:0", w)
			if err != nil {
				t.Fatal(err)
			}
			g := boot(t, fmt.Sprintf(`
[health]
interval = "100ms"
timeout = "5s"
failures = 2
successes = 2

[[upstreams]]
name = "up"
base_url = %q
models = ["unused"]
health = %q

[[models]]
name = "m"
targets = [{ upstream = "up", model = "wall:tokens=4" }]
`, server.URL(), way)+adminTokens)
			is := func(state string) func() bool {
				return func() bool {
					return strings.Contains(g.admin(t, http.MethodGet, "/targets", "").body, `"state":"`+state+`"`)
				}
			}
			checked := func() bool { return w.Stats().Total >= 3 }
			g.eventually(t, "the upstream is checked", checked)
			if err := server.Close(); err != nil {
				t.Fatal(err)
			}
			g.eventually(t, "the dead upstream is found", is("sick"))
			// One call a second is let through to see, the others are told at once.
			if a := g.chat(t, "m", ""); a.status != http.StatusServiceUnavailable && a.status != http.StatusBadGateway {
				t.Errorf("%d %s", a.status, a.body)
			}
			back, err := wall.Listen(server.Addr, w)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = back.Close() })
			g.eventually(t, "it is found again", func() bool { return !is("sick")() })
			again := g.chat(t, "m", "")
			again.complete(t, 4)
			checkUntold(t, g)
		})
	}
}

// checkUntold holds what was told of calls against the two that clients made.
func checkUntold(t *testing.T, g *gatewayUnderTest) {
	t.Helper()
	g.accessLine(t, "m")
	lines := 0
	for _, l := range g.logs.lines() {
		if l["msg"] == "answer" {
			lines++
		}
	}
	if lines > 2 {
		t.Errorf("%d lines in the access log", lines)
	}
	metrics := g.do(t, http.MethodGet, g.AdminURL+"/metrics", "").body
	total := 0.0
	for line := range strings.Lines(metrics) {
		if strings.HasPrefix(line, "gateway_stream_outcome_total{") {
			var n float64
			if _, err := fmt.Sscanf(line[strings.LastIndexByte(line, ' ')+1:], "%g", &n); err != nil {
				t.Fatal(err)
			}
			total += n
		}
	}
	if total == 0 || total > 2 {
		t.Errorf("%g calls in the metrics, want those of clients", total)
	}
	for _, row := range g.usage(t, "").Data {
		if row.Calls > 2 || row.Requests > 1 {
			t.Errorf("usage %+v", row)
		}
	}
}
