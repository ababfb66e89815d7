package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"sluice/cmd/bench/load"
	"sluice/cmd/bench/mock"
)

func TestParseOptions(t *testing.T) {
	o, err := parseOptions(nil, io.Discard)
	if err != nil || o.rounds != 3 || !slices.Equal(o.targets, allTargets) || !slices.Equal(o.tests, allTests) || !o.usage {
		t.Errorf("defaults: %+v, %v", o, err)
	}
	o, err = parseOptions([]string{"--quick", "--targets", "sluice,nginx", "--tests", "idle,paced", "--json", "x"}, io.Discard)
	if err != nil || o.rounds != 1 || !slices.Equal(o.targets, []string{nginx, sluice}) || !slices.Equal(o.tests, []string{paced, idle}) || o.jsonOut != "x" {
		t.Errorf("%+v, %v", o, err)
	}
	o, err = parseOptions([]string{"--truncation", "10"}, io.Discard)
	if err != nil || !slices.Equal(o.targets, []string{sluice}) {
		t.Errorf("%+v, %v", o, err)
	}
	for _, bad := range []string{"--targets=envoy", "--tests=", "--rounds=-1", "--rounds=99", "--truncation=-1", "extra", "--nothing"} {
		if _, err := parseOptions([]string{bad}, io.Discard); err == nil {
			t.Errorf("%s is accepted", bad)
		}
	}
}

// results is a run with one result for each target of every test but ttft, where
// direct has a cell too. CPU is in microseconds per event, call or stream.
func results(cpu map[string]time.Duration) *benchRun {
	b := &benchRun{options: options{rounds: 1, targets: allTargets, tests: allTests}}
	for _, test := range allTests {
		for target, us := range cpu {
			if !takes(target, test) {
				continue
			}
			if test == wsPaced {
				us += 2
			}
			r := load.Result{Events: 1000, Calls: 1000, Streams: 1000, CPU: us * time.Millisecond, Window: time.Second,
				TTFT50: 1 + float64(us)/100, TTFT99: 2, Opened: 10, RSSBefore: 1 << 20, RSSOpen: 1<<20 + int64(us)*10<<10,
				Sockets: 10, RSSSockets: 1<<20 + int64(us)*5<<10}
			b.cells = append(b.cells, cell{Test: test, Target: target, Result: r})
		}
	}
	b.cells = append(b.cells, cell{Test: ttft, Target: direct, Result: load.Result{TTFT50: 1}})
	return b
}

func TestJudge(t *testing.T) {
	verdictOf := func(b *benchRun, name string) verdict {
		for _, v := range b.judge() {
			if v.Name == name {
				return v
			}
		}
		t.Fatalf("no verdict %q in %+v", name, b.judge())
		return verdict{}
	}
	b := results(map[string]time.Duration{nginx: 10, reverseProxy: 16, sluice: 18, limited: 18, shared: 27})
	tests := []struct {
		name     string
		measured float64
		passed   bool
	}{
		{"event x nginx", 1.8, true}, // within tolerance of 1.7
		{"event x reverseproxy", 1.125, true},
		{"burst x nginx", 1.8, false},
		{"request x nginx", 1.8, true},
		{"ttft_added x nginx", 1.8, true},
		{"idle_memory KB", 18, true},
		{"ws_event x sse", 20. / 18, true}, // within tolerance of 1.1
		{"ws_event4 x sse", 1, true},
		{"limits x sluice", 1, true},
		{"redis x sluice", 1.5, false},
		{"streams truncated, wrong, failed or left behind", 0, true},
	}
	for _, tt := range tests {
		v := verdictOf(b, tt.name)
		if v.Measured == nil || math.Abs(*v.Measured-tt.measured) > 1e-9 || v.Passed != tt.passed {
			t.Errorf("%s: %+v, want %v, passed %v", tt.name, v, tt.measured, tt.passed)
		}
	}
	if v := verdictOf(b, "event x nginx"); !strings.Contains(v.Text, "within tolerance") {
		t.Errorf("tolerance is not told: %+v", v)
	}
	for i := range b.cells {
		if c := &b.cells[i]; c.Test == wsPaced {
			c.Result.CPU *= 2
		}
	}
	if v := verdictOf(b, "ws_event x sse"); v.Passed || *v.Measured < 2 {
		t.Errorf("twice the CPU passes: %+v", v)
	}
	b.cells[0].Err = "broken" // whatever target it is, one metric is gone
	b.cells = slices.DeleteFunc(b.cells, func(c cell) bool { return c.Test == paced && c.Target == nginx })
	if v := verdictOf(b, "event x nginx"); v.Passed || v.Measured != nil {
		t.Errorf("not measured, yet %+v", v)
	}
	for i := range b.cells {
		if b.cells[i].Target == sluice {
			b.cells[i].Result.LeftBehind = 1
			break
		}
	}
	if v := verdictOf(b, "streams truncated, wrong, failed or left behind"); v.Passed {
		t.Errorf("one stream left behind passes: %+v", v)
	}
}

// TestAddedTimesCompareMedians: one round in which nginx added nothing must not
// turn the ratio into noise.
func TestAddedTimesCompareMedians(t *testing.T) {
	b := &benchRun{options: options{rounds: 3, targets: allTargets, tests: []string{ttft}}}
	for round, p50 := range []map[string]float64{
		{direct: 1, nginx: 1.2, sluice: 1.3}, {direct: 1, nginx: 1.001, sluice: 1.3}, {direct: 2, nginx: 2.2, sluice: 2.3},
	} {
		for target, v := range p50 {
			b.cells = append(b.cells, cell{Round: round, Test: ttft, Target: target, Result: load.Result{TTFT50: v}})
		}
	}
	for _, m := range metrics {
		if got := b.ratios(m, sluice, nginx); m.added && (len(got) != 1 || math.Abs(got[0]-1.5) > 1e-9) {
			t.Errorf("%s: %v, want 1.5", m.key, got)
		}
	}
}

func TestReport(t *testing.T) {
	b := results(map[string]time.Duration{nginx: 10, reverseProxy: 16, sluice: 12, limited: 12, shared: 13})
	b.jsonOut, b.gate = filepath.Join(t.TempDir(), "out.json"), true
	var out bytes.Buffer
	if err := b.report(&out); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"| sluice | 12.0 | 1.20 | 0.75 |", "| nginx | 1000 | 0 | 0 | 0 | 0 |", "| kept |",
		"| sluice | 14.0 | 1.17 |", "| sluice | 6.00 | - |", "| redis | 13.0 | 1.08 |"} {
		if !strings.Contains(strings.ReplaceAll(out.String(), "6000", "1000"), want) {
			t.Errorf("report lacks %q:\n%s", want, out.String())
		}
	}
	text, err := os.ReadFile(b.jsonOut)
	if err != nil {
		t.Fatal(err)
	}
	var doc struct{ Metrics, Limits, Cells []map[string]any }
	if err := json.Unmarshal(text, &doc); err != nil || len(doc.Metrics) == 0 || len(doc.Limits) != 11 || len(doc.Cells) != 26 {
		t.Errorf("JSON: %v, %d metrics, %d limits, %d cells", err, len(doc.Metrics), len(doc.Limits), len(doc.Cells))
	}
	if err := results(map[string]time.Duration{nginx: 10, reverseProxy: 10, sluice: 25}).gated(&out); !errors.Is(err, errGate) {
		t.Errorf("2.5 x nginx gives %v", err)
	}
	b = results(map[string]time.Duration{nginx: 10, reverseProxy: 16})
	b.targets = []string{nginx, reverseProxy}
	if err := b.gated(&out); !errors.Is(err, errGate) {
		t.Errorf("a gate without Sluice gives %v", err)
	}
}

func (b *benchRun) gated(w io.Writer) error {
	b.gate = true
	return b.report(w)
}

func TestCheckPaced(t *testing.T) {
	j := load.Job{Workers: 200, Shape: mock.Shape{Every: 20 * time.Millisecond}}
	for _, tt := range []struct {
		events  int64
		outside time.Duration
		ok      bool
	}{{20_000, 0, true}, {19_500, 0, true}, {18_000, 0, false}, {22_000, 0, false}, {20_000, time.Millisecond, false}} {
		err := checkPaced(j, load.Result{Events: tt.events, Window: 2 * time.Second, OutsideWindow: tt.outside})
		if (err == nil) != tt.ok {
			t.Errorf("%+v: %v", tt, err)
		}
	}
}

func TestSequence(t *testing.T) {
	if got := sequence(allTests, 0); !slices.Equal(got, allTests) {
		t.Error(got)
	}
	want := []string{wsPaced, wsPaced4, paced, wsBurst, burst, whole, ttft, short, quota, wsIdle, idle}
	if got := sequence(allTests, 1); !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
	if got := sequence([]string{burst, whole}, 1); !slices.Equal(got, []string{burst, whole}) {
		t.Error(got)
	}
}

func TestNumber(t *testing.T) {
	for v, want := range map[float64]string{0: "0.00", 1.234: "1.23", -0.5: "-0.50", 12.34: "12.3", 123.4: "123", math.Inf(1): "-"} {
		if got := number(v); got != want {
			t.Errorf("number(%v) = %q, want %q", v, got, want)
		}
	}
}

func TestConfigs(t *testing.T) {
	if s := sluiceConfig("/d", "127.0.0.1:1", "127.0.0.1:3", "127.0.0.1:2"); !strings.Contains(s, `listen = "127.0.0.1:1"`) || !strings.Contains(s, `"http://127.0.0.1:2/v1"`) {
		t.Error(s)
	}
	s := nginxConfig("/d", "127.0.0.1:1", "127.0.0.1:2", 20000)
	for _, want := range []string{"listen 127.0.0.1:1 ", "server 127.0.0.1:2;", "proxy_http_version 1.1;", "proxy_buffering off;", "worker_connections 20000;", "keepalive_requests 1000000000;"} {
		if !strings.Contains(s, want) {
			t.Errorf("nginx configuration lacks %q", want)
		}
	}
}
