package handlers

import (
	"errors"
	"fmt"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"sluice/handlers/auth"
	"sluice/providers"
	"sluice/streaming"
)

func fullRow() Finished {
	return Finished{
		ID: "req_1", Op: "chat", Transport: "sse", Model: "m", Target: "u/m", Remote: "::1", Key: "k", KeyName: "name", Org: "o", Team: "t", User: "u", Stream: true,
		Start: time.UnixMicro(1_700_000_000_000_001).UTC(), Took: 5 * time.Second, TTFT: time.Millisecond, LastToken: 4 * time.Second,
		Usage:    streaming.UsageData{Prompt: 3, Cached: 1, Completion: 4, Reasoning: 2, Total: 7, Estimated: true},
		Reserved: 60, Money: -5, Attempts: 2, Heartbeats: 1, Malformed: 3, Repaired: 4, Unstopped: 5, End: "ok", Status: 200, Finish: "stop", Limit: "rpm", Code: "c", Message: "msg",
		Tries: []FinishedTry{{Target: "a/m", Begin: 1, End: 2, Outcome: "upstream_timeout", Status: 504, Message: "no"}, {Target: "u/m", Begin: 3, End: 4, Outcome: "ok"}},
	}
}

// TestRecentKeepsAll that a row says, and cuts what is too long.
func TestRecentKeepsAll(t *testing.T) {
	r := NewRecent(10)
	full := fullRow()
	for v, i := reflect.ValueOf(full), 0; i < v.NumField(); i++ {
		if name := v.Type().Field(i).Name; v.Field(i).IsZero() && name != "Number" {
			t.Errorf("the test does not fill %s", name)
		}
	}
	long := Finished{ID: "req_2", Model: strings.Repeat("ü", 200), Message: strings.Repeat("x", 1000), Start: time.UnixMicro(0).UTC()}
	for range 100 {
		long.Tries = append(long.Tries, FinishedTry{Target: strings.Repeat("t", 500), Message: strings.Repeat("m", 500)})
	}
	r.add(&full)
	r.add(&long)
	got, ok := r.Find("req_1")
	if full.Number = 1; !ok || !reflect.DeepEqual(got, full) {
		t.Errorf("got  %+v\nwant %+v", got, full)
	}
	got, ok = r.Find("req_2")
	if !ok || got.Model != strings.Repeat("ü", 64) || len(got.Message) != recentMessage || len(got.Tries) == 0 || len(got.Tries) > 8 {
		t.Errorf("%d bytes of a name, %d of an error, %d tries", len(got.Model), len(got.Message), len(got.Tries))
	}
	if size := len(appendFinished(nil, &long)); size > recentRowSize {
		t.Errorf("a row of %d bytes", size)
	}
	if _, ok := r.Find("req_3"); ok {
		t.Error("found what was never there")
	}
}

// longest is the largest row that there can be.
func longest() *Finished {
	s := strings.Repeat("x", 10_000)
	f := &Finished{ID: s, Op: s, Transport: s, Model: s, Target: s, Remote: s, Key: s, KeyName: s, Org: s, Team: s, User: s, End: s, Finish: s, Limit: s, Code: s, Message: s,
		Took: -1 << 63, TTFT: -1 << 63, LastToken: -1 << 63, Usage: streaming.UsageData{Prompt: -1 << 63, Cached: -1 << 63, Completion: -1 << 63, Reasoning: -1 << 63},
		Reserved: -1 << 63, Money: -1 << 63, Attempts: -1 << 63, Heartbeats: -1 << 63, Malformed: -1 << 63, Repaired: -1 << 63, Unstopped: -1 << 63, Status: -1 << 63}
	for range 50 {
		f.Tries = append(f.Tries, FinishedTry{s, -1 << 63, -1 << 63, s, -1 << 63, s})
	}
	return f
}

// TestRecentIsBounded in rows and in bytes, and walks in pages, newest first.
func TestRecentIsBounded(t *testing.T) {
	if size := len(appendFinished(nil, longest())); size > recentRowSize {
		t.Errorf("a row of %d bytes", size)
	}
	small := Finished{ID: "req", Start: time.Now()}
	for name, c := range map[string]struct {
		row         *Finished
		rows, least int
		most        int
	}{
		"small": {&small, 1000, 1000, 3000},
		"large": {longest(), 1000, 300, 1000},
	} {
		r := NewRecent(c.rows)
		for range 20_000 {
			r.add(c.row)
		}
		n, last := 0, uint64(20_001)
		r.Rows(0, func(f *Finished) bool {
			if f.Number != last-1 {
				t.Fatalf("%s: %d after %d", name, f.Number, last)
			}
			n, last = n+1, f.Number
			return true
		})
		bytes := 0
		for _, b := range r.blocks {
			bytes += cap(b.text)
		}
		if n < c.least || n > c.most || n != r.rows || bytes > c.rows<<10+2*recentBlockSize {
			t.Errorf("%s: %d rows in %d bytes", name, n, bytes)
		}
		r.Rows(last+5, func(f *Finished) bool {
			if f.Number != last+4 {
				t.Errorf("%s: a page from %d begins with %d", name, last+5, f.Number)
			}
			return false
		})
	}
}

func TestRecentTogether(t *testing.T) {
	r := NewRecent(500)
	var all sync.WaitGroup
	for g := range 4 {
		all.Go(func() {
			for i := range 1000 {
				r.add(&Finished{ID: fmt.Sprint(g, i), Start: time.Now(), Model: "m"})
				if i%100 == 0 {
					r.Rows(0, func(f *Finished) bool {
						if f.Model != "m" {
							t.Errorf("%+v", f)
						}
						return true
					})
				}
			}
		})
	}
	all.Wait()
}

// TestTriesAreTold: each attempt has its end, and the words of an upstream about a
// credential are not among them.
func TestTriesAreTold(t *testing.T) {
	p := streaming.NewProgress(time.Now())
	p.SetTarget("a/m")
	p.EndTry(&providers.Error{Kind: providers.UpstreamCredential, Status: 401, Message: "bad key sk-secret"})
	p.EndTry(errors.New("not again"))
	p.SetTarget("b/m")
	p.EndTry(&providers.Error{Kind: providers.Overloaded, Status: 503, Message: "busy"})
	p.SetTarget("c/m")
	l := &accessLine{report: p.Report(), err: ErrKilled}
	f := describe(ErrKilled)
	r := NewRecent(1)
	r.remember(l, &call{who: auth.Principal{}}, p, &f)
	row, _ := r.Find("")
	var told []string
	for _, x := range row.Tries {
		told = append(told, fmt.Sprintf("%s %s %d", x.Target, x.Outcome, x.Status))
		if strings.Contains(x.Message, "secret") || x.End < x.Begin {
			t.Errorf("%+v", x)
		}
	}
	if got := strings.Join(told, ", "); got != "a/m upstream_credential 401, b/m upstream_overloaded 503, c/m killed 0" {
		t.Error(got)
	}
}

// BenchmarkRecent is what an answer costs more for being remembered.
func BenchmarkRecent(b *testing.B) {
	r := NewRecent(keptAnswers)
	p := streaming.NewProgress(time.Now())
	p.SetTarget("upstream/model")
	f := describe(nil)
	c := &call{req: &providers.Request{}, who: auth.Principal{Key: "app", Org: "acme"}}
	l := &accessLine{id: "req_0123456789abcdef01234567", op: "chat", transport: "sse", model: "gpt-x", key: "app", remote: "127.0.0.1", report: p.Report()}
	b.ReportAllocs()
	for b.Loop() {
		r.remember(l, c, p, &f)
	}
}
