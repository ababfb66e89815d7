//go:build prove

package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// These tests hold what a token of each adapter costs the gateway against one of the raw
// relay. The gateway runs in this process and nothing else of weight does: upstreams and
// clients are a process of their own (adapters_load_prove_test.go). What is compared is
// CPU time of this process, garbage collection included, in rounds that take the kinds in
// turn, so that a slow moment of the machine meets all of them.

// maxRatio is what a translated token may cost, in raw ones. Like all figures it has a
// tolerance of a tenth, for noise.
const maxRatio, tolerance = 2.0, 1.1

// loadJob is what the load process is asked to do once.
type loadJob struct {
	URL, Key, Model string
	Streams, Tokens int
	Gap             time.Duration // between tokens; 0: as fast as it goes
}

// load is the process with upstreams and clients.
type load struct {
	base string // of all upstreams
	in   io.WriteCloser
	out  *bufio.Scanner
}

// startLoad runs the load process until the test ends.
func startLoad(t *testing.T) *load {
	t.Helper()
	command := exec.Command(os.Args[0], "-test.run=^TestAdapterLoad$")
	command.Env = append(os.Environ(), asAdapterLoad+"=1")
	var faults bytes.Buffer
	command.Stderr, command.WaitDelay = &faults, time.Second
	in, err := command.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := command.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = in.Close() // it ends with its input
		if err := command.Wait(); err != nil || t.Failed() {
			t.Logf("the load process: %v\n%s", err, faults.String())
		}
	})
	l := &load{in: in, out: bufio.NewScanner(out)}
	l.base = l.line(t)
	return l
}

func (l *load) line(t *testing.T) string {
	t.Helper()
	if !l.out.Scan() {
		t.Fatalf("the load process ended: %v", l.out.Err())
	}
	return l.out.Text()
}

// run does a job and returns what it cost this process, for each token.
func (l *load) run(t *testing.T, j loadJob) time.Duration {
	t.Helper()
	line, err := json.Marshal(j)
	if err != nil {
		t.Fatal(err)
	}
	before := cpuTime(t)
	if _, err := l.in.Write(append(line, '\n')); err != nil {
		t.Fatal(err)
	}
	if got := l.line(t); got != "ok" {
		t.Fatalf("%s: %s", j.Model, got)
	}
	return (cpuTime(t) - before) / time.Duration(j.Streams*j.Tokens)
}

// cpuTime is what this process has used so far.
func cpuTime(t *testing.T) time.Duration {
	t.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		t.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// adapterKinds are the models of the gateway under test; the first is the raw relay.
var adapterKinds = []string{"raw", "ollama", "tgi", "anthropic", "gemini", "kserve-http", "kserve-grpc", "mii"}

// overAll is a configuration with an upstream of each kind.
func overAll(base string) string {
	var b strings.Builder
	b.WriteString("[demo]\nenabled = false\n[log]\naccess = \"off\"\n[retry]\ntries = 1\n")
	up := func(model, kind, path, more string) {
		fmt.Fprintf(&b, "[[upstreams]]\nname = %q\nkind = %q\nbase_url = %q\nmodels = [%q]\nlocal = true\n%s", model, kind, base+path, model, more)
	}
	writer := func(model string) string {
		return fmt.Sprintf("[[upstreams.kserve.models]]\nname = %q\ndecoupled = true\ntemplate = \"chatml\"\ninputs = [{ name = \"text_input\", datatype = \"BYTES\", shape = [1], from = \"text\" }]\n"+
			"outputs = [{ name = \"text_output\", as = \"text\" }, { name = \"finish_reason\", as = \"finish_reason\" }]\n", model)
	}
	up("raw", "openai", "/v1", "")
	up("ollama", "ollama", "", "")
	up("tgi", "tgi", "", "[upstreams.tgi]\ntemplate = \"chatml\"\n")
	up("anthropic", "anthropic", "/anthropic/v1", "")
	up("gemini", "gemini", "/v1beta", "")
	up("kserve-http", "kserve", "", "[upstreams.kserve]\ntransport = \"http\"\n"+writer("kserve-http"))
	up("kserve-grpc", "kserve", "", "[upstreams.kserve]\ntransport = \"grpc\"\n"+writer("kserve-grpc"))
	up("mii", "mii", "", "[upstreams.mii]\ntemplate = \"chatml\"\n")
	return b.String()
}

// TestAdapterCPU measures tokens that come one by one, as model servers generate them,
// and tokens as fast as they go.
func TestAdapterCPU(t *testing.T) {
	const rounds = 5
	l := startLoad(t)
	g := boot(t, overAll(l.base))
	for name, job := range map[string]loadJob{
		"one by one": {Streams: 100, Tokens: 80, Gap: 20 * time.Millisecond},
		"at once":    {Streams: 16, Tokens: 4000},
	} {
		t.Run(name, func(t *testing.T) {
			job.URL, job.Key = g.URL+"/chat/completions", g.Key
			costs := map[string][]time.Duration{}
			for round := range rounds + 1 {
				for _, model := range adapterKinds {
					job.Model = model
					if cost := l.run(t, job); round > 0 { // the first fills pools and connections
						costs[model] = append(costs[model], cost)
					}
				}
			}
			for _, model := range adapterKinds {
				ratio := relativeCost(t, model, costs[model], costs[adapterKinds[0]])
				if ratio > maxRatio*tolerance {
					t.Errorf("%s costs %.2f x the raw relay, want at most %.1f", model, ratio, maxRatio)
				}
			}
		})
	}
}

// relativeCost is the median of the ratios by round.
func relativeCost(t *testing.T, model string, costs, raw []time.Duration) float64 {
	t.Helper()
	var ratios []float64
	for i, c := range costs {
		ratios = append(ratios, float64(c)/float64(raw[i]))
	}
	slices.Sort(ratios)
	costs = slices.Sorted(slices.Values(costs))
	n := len(costs)
	t.Logf("%-12s %7.2f us a token, %.2f (%.2f-%.2f) x raw", model, float64(costs[n/2])/1e3, ratios[n/2], ratios[0], ratios[n-1])
	return ratios[n/2]
}
