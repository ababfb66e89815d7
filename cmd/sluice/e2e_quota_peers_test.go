package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"sluice/providers/providertest/wall"
	"sluice/ratelimit/ratelimittest/redistest"
)

// TestQuotaPeers: what other gateways get wrong, counted in this process and in Redis.
func TestQuotaPeers(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, limits string
		check        func(*testing.T, *gatewayUnderTest, *wall.Wall)
	}{
		{"five times 175 tokens at once, at 100 a minute, admit one", "tokens_per_minute = 100\n", fiveAtOnce},
		{"ten tokens a minute still serve", "tokens_per_minute = 10\n", servesTen},
		{"denied calls change nothing", "requests_per_day = 100\ntokens_per_day = 10_000\nconcurrent = 1\n", deniedChangesNothing},
		{"who leaves before the usage pays what was generated", "tokens_per_day = 10_000\n", leavesBeforeUsage},
		{"a refund fills to the brim", "requests_per_day = 100\ntokens_per_day = 10_000\n", refundsAll},
		{"an overage goes below zero and is waited out", "output_tokens_per_second = 20\n", waitsDebtOut},
	} {
		for _, store := range []string{"memory", "redis"} {
			t.Run(c.name+", "+store, func(t *testing.T) {
				t.Parallel()
				base, w := wall.Start(t)
				config := "[retry]\ntries = 1\n[[limits]]\nid = \"l\"\nscope = \"key\"\n" + c.limits
				if store == "redis" {
					config = overRedis(redistest.Single(t).Addr, config)
				}
				c.check(t, boot(t, limited(base, config)), w)
			})
		}
	}
}

// fiveAtOnce asks for 13 estimated tokens and up to 162 at a time.
func fiveAtOnce(t *testing.T, g *gatewayUnderTest, w *wall.Wall) {
	ctx, leave := context.WithCancel(t.Context())
	defer leave()
	var passed, denied int
	var mu sync.Mutex
	var all sync.WaitGroup
	for range 5 {
		all.Go(func() {
			res, err := g.Client.Do(g.request(ctx, t, http.MethodPost, chatPath, chatBody(wallModel("five", "tokens=100,stall=1"), true, `,"max_tokens":162`)))
			if err != nil {
				t.Error(err)
				return
			}
			t.Cleanup(func() { _ = res.Body.Close() })
			mu.Lock()
			defer mu.Unlock()
			switch res.StatusCode {
			case http.StatusOK:
				passed++
			case http.StatusTooManyRequests:
				denied++
			}
		})
	}
	all.Wait()
	if passed != 1 || denied != 4 || calls(w, "five") != 1 {
		t.Errorf("%d passed, %d were denied, the upstream was asked %d times", passed, denied, calls(w, "five"))
	}
}

func servesTen(t *testing.T, g *gatewayUnderTest, _ *wall.Wall) {
	ask := func(script string) answer {
		return g.do(t, http.MethodPost, chatPath, fmt.Sprintf(`{"model":%q,"stream":true,"messages":[{"role":"user","content":"hi"}]}`, wallModel("ten", script)))
	}
	if a := ask("tokens=40"); a.status != http.StatusOK || !a.done {
		t.Errorf("a call of about a thousand tokens: %d, %s", a.status, a.body)
	}
	if a := ask("tokens=1"); a.status != http.StatusTooManyRequests {
		t.Errorf("a second one, in debt: %d", a.status)
	}
}

func deniedChangesNothing(t *testing.T, g *gatewayUnderTest, w *wall.Wall) {
	ctx, leave := context.WithCancel(t.Context())
	g.openStream(ctx, t, chatBody(wallModel("holds", "stall=1"), true, `,"max_tokens":16`))
	before := []string{g.left(t, "l.requests_per_day"), g.left(t, "l.tokens_per_day")}
	for range 5 {
		if a := g.chat(t, wallModel("over", ""), ""); a.status != http.StatusTooManyRequests {
			t.Errorf("%d: %s", a.status, a.body)
		}
	}
	if after := []string{g.left(t, "l.requests_per_day"), g.left(t, "l.tokens_per_day")}; after[0] != before[0] || after[1] != before[1] || before[0] != "99" {
		t.Errorf("left before: %v, after five denials: %v", before, after)
	}
	if calls(w, "over") != 0 {
		t.Error("the upstream was asked")
	}
	leave()
	g.awaitLeft(t, "l.concurrent", "1")
}

func leavesBeforeUsage(t *testing.T, g *gatewayUnderTest, _ *wall.Wall) {
	ctx, leave := context.WithCancel(t.Context())
	res := g.openStream(ctx, t, chatBody(wallModel("leaves", "tokens=100,stall=20,usage=trailer"), true, `,"max_tokens":500`))
	readUntil(t, res.Body, time.Now(), func(s string) bool { return strings.Count(s, `"delta":{"content":"`) >= 20 })
	leave()
	_, _ = io.Copy(io.Discard, res.Body)
	line := g.accessLine(t, wallModel("leaves", "tokens=100,stall=20,usage=trailer"))
	out, _ := strconv.Atoi(line["out"])
	if out < 20 || out > 50 || line["estimated"] != "true" { // a token of the wall is up to 2.5 estimated ones
		t.Errorf("20 tokens were generated, %v", line)
	}
	g.awaitLeft(t, "l", fmt.Sprint(10_000-promptEstimate-out))
}

func refundsAll(t *testing.T, g *gatewayUnderTest, _ *wall.Wall) {
	for _, script := range []string{"status=503", "cut=0", "abort=pre"} {
		if a := g.chat(t, wallModel("fails", script), `,"max_tokens":5000`); a.status < http.StatusInternalServerError {
			t.Errorf("%s: %d", script, a.status)
		}
	}
	for id, full := range map[string]string{"l.requests_per_day": "100", "l.tokens_per_day": "10000"} {
		if left := g.left(t, id); left != full {
			t.Errorf("%s: %s of %s are left", id, left, full)
		}
	}
}

func waitsDebtOut(t *testing.T, g *gatewayUnderTest, _ *wall.Wall) {
	if a := g.chat(t, wallModel("much", "tokens=100"), askUsage); a.status != http.StatusOK {
		t.Fatalf("%d: %s", a.status, a.body)
	}
	settled := time.Now()
	a := g.chat(t, wallModel("next", "tokens=1"), `,"max_tokens":20`)
	ms, _ := strconv.Atoi(a.header.Get("Retry-After-Ms"))
	if a.status != http.StatusTooManyRequests || ms < 1000 || ms > 5000 || a.header.Get("X-Ratelimit-Remaining-Tokens") != "0" {
		t.Fatalf("in debt: %d, %v", a.status, a.header)
	}
	<-time.After(time.Duration(ms) * time.Millisecond)
	if a = g.chat(t, wallModel("next", "tokens=1"), `,"max_tokens":20`); a.status != http.StatusOK {
		t.Errorf("after the wait that was told: %d, %s", a.status, a.body)
	}
	if debt := 80.0 + 20; time.Since(settled).Seconds() < debt/20-0.1 {
		t.Errorf("a debt of 80 at 20 a second was waited out in %v", time.Since(settled))
	}
}
