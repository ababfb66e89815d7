package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"
)

// Names of targets. direct is no gateway: the clients talk to the mock, which
// gives the latency that the others add to.
const (
	nginx        = "nginx"
	reverseProxy = "reverseproxy"
	sluice       = "sluice"
	direct       = "direct"

	limited = "limits" // Sluice with limits, counted in the process
	shared  = "redis"  // the same, counted in Redis
)

// Names of tests.
const (
	paced = "paced"
	burst = "burst"
	whole = "json"
	ttft  = "ttft"
	idle  = "idle"
	short = "short"
	quota = "quota" // what limits add to a stream

	wsPaced  = "wspaced"  // as paced, each stream on a socket of its own
	wsPaced4 = "wspaced4" // as paced, four streams on a socket
	wsBurst  = "wsburst"  // as burst
	wsIdle   = "wsidle"   // sockets that carry nothing, then a stream each as idle has them
)

var (
	allTargets = []string{nginx, reverseProxy, sluice, limited, shared}
	allTests   = []string{paced, wsPaced, wsPaced4, burst, wsBurst, whole, ttft, short, quota, idle, wsIdle} // in the order they run
	overWS     = []string{wsPaced, wsPaced4, wsBurst, wsIdle}                                                // of these, what only Sluice offers
	fresh      = []string{idle, wsIdle}                                                                      // run in a process of their own
)

// options are the command line.
type options struct {
	quick      bool
	rounds     int
	targets    []string
	tests      []string
	sluiceBin  string
	jsonOut    string
	gate       bool
	truncation int
	usage      bool
	keep       bool
}

func parseOptions(args []string, stderr io.Writer) (options, error) {
	var o options
	var targets, tests string
	fs := flag.NewFlagSet("bench", flag.ContinueOnError)
	fs.SetOutput(stderr)
	fs.BoolVar(&o.quick, "quick", false, "short windows and one round: shows that everything runs, measures nothing")
	fs.IntVar(&o.rounds, "rounds", 0, "interleaved rounds (default 3, with --quick 1)")
	fs.StringVar(&targets, "targets", strings.Join(allTargets, ","), "gateways to compare")
	fs.StringVar(&tests, "tests", strings.Join(allTests, ","), "tests to run")
	fs.StringVar(&o.sluiceBin, "sluice", "", "`path` of a sluice binary (default: built from ./cmd/sluice)")
	fs.StringVar(&o.jsonOut, "json", "", "also write all results to this `file`")
	fs.BoolVar(&o.gate, "gate", false, "exit 1 unless Sluice keeps within the limits")
	fs.IntVar(&o.truncation, "truncation", 0, "instead of the tests: send `N` short streams through Sluice and count damaged ones (45000 is the proof)")
	fs.BoolVar(&o.usage, "usage", true, "clients ask for the usage trailer")
	fs.BoolVar(&o.keep, "keep", false, "keep the directory with generated configurations and logs")
	if err := fs.Parse(args); err != nil {
		return o, err
	}
	if fs.NArg() > 0 {
		return o, fmt.Errorf("unexpected argument %q", fs.Arg(0))
	}
	if o.rounds == 0 {
		o.rounds = 3
		if o.quick {
			o.rounds = 1
		}
	}
	if o.rounds < 1 || o.rounds > 20 || o.truncation < 0 || o.truncation > 1_000_000 {
		return o, errors.New("--rounds must be 1 to 20, --truncation at most 1000000")
	}
	explicit := false
	fs.Visit(func(f *flag.Flag) { explicit = explicit || f.Name == "targets" })
	if o.truncation > 0 && !explicit {
		targets = sluice
	}
	var err1, err2 error
	o.targets, err1 = pick("target", targets, allTargets)
	o.tests, err2 = pick("test", tests, allTests)
	return o, errors.Join(err1, err2)
}

// pick returns the listed names in the order of known.
func pick(what, list string, known []string) ([]string, error) {
	asked := strings.Split(list, ",")
	for _, name := range asked {
		if !slices.Contains(known, name) {
			return nil, fmt.Errorf("unknown %s %q, known are %s", what, name, strings.Join(known, ", "))
		}
	}
	return slices.DeleteFunc(slices.Clone(known), func(n string) bool { return !slices.Contains(asked, n) }), nil
}

// scale holds the sizes that --quick shrinks.
type scale struct {
	warm, window time.Duration // all but idle and wsidle
	idleStreams  int
	idleHold     time.Duration
}

func (o options) scale() scale {
	if o.quick {
		return scale{warm: 500 * time.Millisecond, window: 2 * time.Second, idleStreams: 1000, idleHold: 6 * time.Second}
	}
	return scale{warm: 2 * time.Second, window: 10 * time.Second, idleStreams: 5000, idleHold: 12 * time.Second}
}
