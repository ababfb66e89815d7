package ratelimit_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"sluice/ratelimit"
	"sluice/ratelimit/ledger"
	"sluice/ratelimit/ratelimittest"
	"sluice/ratelimit/ratelimittest/redistest"
)

// The bucket that three processes fight for: a burst of 200, and 500 more each second.
var foughtFor = ratelimit.Rule{ID: "all", Scope: ratelimit.Org, Dim: ratelimit.Requests, Amount: 30_000, Per: ratelimit.Minute, Burst: 200}

const (
	gatewayAddr = "SLUICE_TEST_REDIS" // set in the processes that are gateways
	gatewayName = "SLUICE_TEST_GATEWAY"
	gatewaySkew = "SLUICE_TEST_SKEW"
	fight       = 3 * time.Second
)

// TestRedisGatewayProcess is one of the processes of TestRedisIsExactOverProcesses.
func TestRedisGatewayProcess(t *testing.T) {
	addr := os.Getenv(gatewayAddr)
	if addr == "" {
		return // it is run by TestRedisIsExactOverProcesses
	}
	skew, err := time.ParseDuration(os.Getenv(gatewaySkew))
	if err != nil {
		t.Fatal(err)
	}
	l := ratelimit.NewRedis(redistest.ClientFor(t, addr, ratelimit.TuneRedis), ratelimit.RedisOptions{Rules: rules(t, foughtFor), Timeout: patient})
	defer l.Close()
	var mu sync.Mutex
	var wg sync.WaitGroup
	end := time.Now().Add(fight)
	for client := range 67 {
		wg.Go(func() {
			for n := 0; time.Now().Before(end); n++ {
				id := fmt.Sprintf("%s-%d-%d", os.Getenv(gatewayName), client, n)
				c := &ratelimit.Call{ID: id, Who: ratelimit.Subject{Org: "acme"}, Want: ratelimit.Cost{Requests: 1},
					Row: ledger.Row{ID: id, Org: "acme", Start: time.Now().Add(skew)}}
				from := time.Now()
				_, err := l.Reserve(t.Context(), c)
				to := time.Now()
				var d *ratelimit.Denied
				if err != nil && !errors.As(err, &d) {
					t.Error(err)
					return
				}
				if err == nil {
					mu.Lock()
					fmt.Println("took", from.UnixMicro(), to.UnixMicro())
					mu.Unlock()
				}
			}
		})
	}
	wg.Wait()
}

// In every window of time no more is admitted than burst + rate · T, and what may be
// admitted is: three processes with 201 clients whose clocks are half a minute apart.
func TestRedisIsExactOverProcesses(t *testing.T) {
	s := redistest.Single(t)
	var history ratelimittest.History
	var mu sync.Mutex
	var wg sync.WaitGroup
	first, last, took := time.Now().Add(time.Hour), time.Time{}, int64(0)
	for name, skew := range map[string]string{"a": "-30s", "b": "0s", "c": "30s"} {
		wg.Go(func() {
			lines, err := gateway(t, s.Addr, name, skew)
			if err != nil {
				t.Error(err)
			}
			mu.Lock()
			defer mu.Unlock()
			for _, line := range lines {
				var from, to int64
				if _, err := fmt.Sscanf(line, "took %d %d", &from, &to); err != nil {
					continue
				}
				e := ratelimittest.Event{From: time.UnixMicro(from), To: time.UnixMicro(to), Took: 1}
				history.Add(e)
				took++
				first, last = earlier(first, e.To), later(last, e.From)
			}
		})
	}
	wg.Wait()
	if err := history.Check(&foughtFor); err != nil {
		t.Error(err)
	}
	least := foughtFor.Burst + last.Sub(first).Microseconds()*foughtFor.Amount/time.Minute.Microseconds()
	t.Logf("%d admitted in %v", took, last.Sub(first))
	if took < least-1 {
		t.Errorf("%d admitted, at least %d may be", took, least)
	}
}

// gateway runs this test's own binary as one gateway and returns the lines that it says.
func gateway(t *testing.T, addr, name, skew string) ([]string, error) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, os.Args[0], "-test.run", "^TestRedisGatewayProcess$", "-test.count=1")
	cmd.Env = append(os.Environ(), gatewayAddr+"="+addr, gatewayName+"="+name, gatewaySkew+"="+skew)
	out, err := cmd.CombinedOutput()
	if err != nil {
		return nil, fmt.Errorf("gateway %s: %w\n%s", name, err, out)
	}
	var lines []string
	for in := bufio.NewScanner(strings.NewReader(string(out))); in.Scan(); {
		lines = append(lines, in.Text())
	}
	return lines, nil
}

func earlier(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}

func later(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}
