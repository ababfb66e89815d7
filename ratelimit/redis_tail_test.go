package ratelimit_test

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"sluice/ratelimit"
	"sluice/ratelimit/ledger"
	"sluice/ratelimit/ratelimittest/redistest"
)

// tailRules are buckets in both slots, which do not fill while a test runs.
var tailRules = []ratelimit.Rule{
	{ID: "rpd", Scope: ratelimit.Key, Dim: ratelimit.Requests, Amount: 1000, Per: ratelimit.Day},
	{ID: "usd", Scope: ratelimit.Org, Dim: ratelimit.Output, Amount: 10_000, Per: ratelimit.CalendarMonth},
	{ID: "par", Scope: ratelimit.Key, Dim: ratelimit.Streams, Amount: 50},
	{ID: "all", Scope: ratelimit.Global, Dim: ratelimit.Output, Amount: 100_000, Per: ratelimit.CalendarMonth},
}

// tailOrgs are in different slots of a cluster.
var tailOrgs = []string{"acme", "b", "c", "d"}

func tailCall(org, id string) *ratelimit.Call {
	c := redisCall(org+"-"+id, 0, 100)
	c.Who.Org, c.Row.Org = org, org
	return c
}

// tailed is one gateway's traffic, and what the model says of it.
type tailed struct {
	*testing.T
	l       *ratelimit.Redis
	client  redis.UniversalClient
	settled map[string]int64 // tokens by organisation
	rows    map[string]int64 // tokens by id
	open    map[string][]*ratelimit.Call
	n       int
}

func newTailed(t *testing.T, client func(func(*redis.UniversalOptions)) redis.UniversalClient) *tailed {
	l := ratelimit.NewRedis(client(ratelimit.TuneRedis), ratelimit.RedisOptions{Rules: rules(t, tailRules...), Timeout: patient})
	t.Cleanup(func() { _ = l.Close() })
	return &tailed{T: t, l: l, client: client(nil), settled: map[string]int64{}, rows: map[string]int64{}, open: map[string][]*ratelimit.Call{}}
}

// work settles three calls of each organisation and leaves one open.
func (d *tailed) work() {
	d.Helper()
	for _, org := range tailOrgs {
		for i := range 4 {
			d.n++
			c := tailCall(org, fmt.Sprint(d.n))
			redisReserve(d, d.l, c)
			if i == 3 {
				d.open[org] = append(d.open[org], c)
				continue
			}
			d.end(c, int64(d.n))
		}
	}
}

func (d *tailed) end(c *ratelimit.Call, output int64) {
	d.Helper()
	redisSettle(d, d.l, c, ratelimit.Cost{Requests: 1, Output: output})
	d.settled[c.Who.Org] += output
	d.rows[c.ID] += output
}

// agrees waits until all levels are what they must be.
func (d *tailed) agrees(what string) {
	d.Helper()
	var calls, all int64
	for _, org := range tailOrgs {
		all += d.settled[org] + 100*int64(len(d.open[org]))
	}
	for _, org := range tailOrgs {
		calls = int64(len(d.open[org]))
		for id := range d.rows {
			if strings.HasPrefix(id, org+"-") {
				calls++
			}
		}
		who := tailCall(org, "").Who
		want := []int64{1000 - calls, 10_000 - d.settled[org] - 100*int64(len(d.open[org])), 50 - int64(len(d.open[org])), 100_000 - all}
		var got []int64
		for deadline := time.Now().Add(30 * time.Second); fmt.Sprint(got) != fmt.Sprint(want); time.Sleep(20 * time.Millisecond) {
			if time.Now().After(deadline) {
				d.Fatalf("%s: %s has %v left, want %v", what, org, got, want)
			}
			got = got[:0]
			levels, err := d.l.Peek(d.Context(), &who)
			for _, v := range levels {
				got = append(got, v.Left)
			}
			if err != nil && time.Now().After(deadline) {
				d.Fatal(err)
			}
		}
	}
}

// booked compares the rows and sums of the ledger with what was settled.
func (d *tailed) booked() {
	d.Helper()
	book := ledger.NewRedis(d.client, "sluice:", ledger.Retention{})
	got := map[string]int64{}
	for _, org := range tailOrgs {
		page, err := book.Rows(d.Context(), ledger.Filter{Match: ledger.Match{Org: org}, Limit: 1000})
		if err != nil {
			d.Fatal(err)
		}
		for _, row := range page.Rows {
			if _, twice := got[row.ID]; twice {
				d.Errorf("two rows of %s", row.ID)
			}
			got[row.ID] = row.Output
		}
		sums, err := book.Usage(d.Context(), ledger.Query{Match: ledger.Match{Org: org}})
		if err != nil || len(sums) != 1 || sums[0].Output != d.settled[org] {
			d.Errorf("%s has used %+v, %v, want %d", org, sums, err, d.settled[org])
		}
	}
	if fmt.Sprint(got) != fmt.Sprint(d.rows) {
		d.Errorf("rows %v\nwant %v", got, d.rows)
	}
}

// finish settles what is open, and compares everything.
func (d *tailed) finish() {
	d.Helper()
	d.agrees("told again")
	for org, calls := range d.open {
		for _, c := range calls {
			d.end(c, 150)
		}
		d.open[org] = nil
	}
	d.agrees("all settled")
	d.booked()
	if s := d.l.State(); s.Open != 0 || s.Reminded == 0 {
		d.Errorf("%+v", s)
	}
}

// Rows 43 and 44 of the fault matrix, and what a disk may lose: Redis comes back as it was
// before the last calls.
func TestRedisIsToldAgainWhatItLost(t *testing.T) {
	for name, c := range map[string]struct {
		args []string
		// keep is done before the calls that are lost, lose after the server has died.
		keep, lose func(t *testing.T, s *redistest.Server)
	}{
		"an older snapshot": {nil, func(t *testing.T, s *redistest.Server) { s.Must("SAVE") }, nil},
		"nothing is left":   {nil, nil, nil},
		"the end of a log": {[]string{"--appendonly", "yes", "--appendfsync", "everysec", "--aof-use-rdb-preamble", "no"}, nil,
			func(t *testing.T, s *redistest.Server) { cutLog(t, s, 5000) }},
		"the middle of a script": {[]string{"--appendonly", "yes"}, nil,
			func(t *testing.T, s *redistest.Server) { cutLogIn(t, s, "settled") }},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := redistest.Single(t, c.args...)
			d := newTailed(t, s.Client)
			d.work()
			if c.keep != nil {
				c.keep(t, s)
			}
			d.work()
			for org, calls := range d.open { // reserved before, settled after what is kept
				d.end(calls[0], 130)
				d.open[org] = calls[1:]
			}
			d.agrees("before")
			s.Kill()
			if c.lose != nil {
				c.lose(t, s)
			}
			s.Start()
			d.finish()
		})
	}
}

// cutLog takes bytes from the end of what an append-only Redis has on disk.
func cutLog(t *testing.T, s *redistest.Server, bytes int64) {
	t.Helper()
	name := logOf(t, s)
	info, err := os.Stat(name)
	if err != nil || info.Size() < 2*bytes {
		t.Fatal(info, err)
	}
	if err := os.Truncate(name, info.Size()-bytes); err != nil {
		t.Fatal(err)
	}
}

// cutLogIn ends the log in the middle of the last text.
func cutLogIn(t *testing.T, s *redistest.Server, text string) {
	t.Helper()
	name := logOf(t, s)
	log, err := os.ReadFile(name)
	at := bytes.LastIndex(log, []byte(text))
	if err != nil || at < 0 {
		t.Fatal(at, err)
	}
	if err := os.Truncate(name, int64(at+len(text)/2)); err != nil {
		t.Fatal(err)
	}
}

func logOf(t *testing.T, s *redistest.Server) string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(s.Dir, "appendonlydir", "*.incr.aof"))
	if err != nil || len(files) != 1 {
		t.Fatal(files, err)
	}
	return files[0]
}

// A Redis that has kept everything has lost nothing: neither what it knew as open, nor what it
// was told of calls that it never granted.
func TestRedisThatKeptAllHasLostNothing(t *testing.T) {
	t.Parallel()
	s := redistest.Single(t)
	d := newTailed(t, s.Client)
	d.work()
	alone := func(id string, used ratelimit.Cost) {
		t.Helper()
		c := tailCall("acme", id)
		row := ledger.Row{ID: id, Org: "acme", Requests: 1, Output: used.Output, End: "ok"}
		x := &ratelimit.Settlement{Call: c, Used: used, Row: row, Past: &ratelimit.Past{Granted: true, At: time.Now()}}
		if err := d.l.Settle(t.Context(), x); err != nil {
			t.Fatal(err)
		}
	}
	alone("alone", ratelimit.Cost{Requests: 1, Output: 10})
	alone("nothing", ratelimit.Cost{})
	redisSettle(t, d.l, tailCall("acme", "stranger"), ratelimit.Cost{Requests: 1, Output: 10})
	for range 2 {
		if lost, told := d.l.TellAgain(t.Context()); lost != 0 || !told {
			t.Errorf("%d were lost, %v", lost, told)
		}
	}
	s.Must("FLUSHALL")
	if lost, told := d.l.TellAgain(t.Context()); lost == 0 && d.l.State().Reminded == 0 || !told {
		t.Errorf("after all was lost: %d, %v", lost, told)
	}
}

// A call that is reserved again is kept alive from then on, also when the answer to that is lost; and
// its organisation is registered again.
func TestRedisRestoresThoughAReplyIsLost(t *testing.T) {
	t.Parallel()
	s := redistest.Single(t)
	p := newProxy(t, s.Addr, false)
	o := ratelimit.RedisOptions{Rules: rules(t, tailRules...), Timeout: patient, Lease: 10 * time.Minute} // nothing happens by itself
	l := ratelimit.NewRedis(redistest.ClientFor(t, p.addr, ratelimit.TuneRedis), o)
	t.Cleanup(func() { _ = l.Close() })
	c := tailCall("acme", "a")
	redisReserve(t, l, c)
	b := tailCall("b", "1")
	redisReserve(t, l, b)
	redisSettle(t, l, b, ratelimit.Cost{})
	s.Must("FLUSHALL")
	l.RenewAll(t.Context())
	if l.Renews(c.ID) {
		t.Fatal("it is not known to be lost")
	}
	p.lose.Store(1)
	if !l.Remind(t.Context()) || !l.Renews(c.ID) {
		t.Errorf("it is not kept alive: %+v", l.State())
	}
	equal(t, "left", left(t, l, c.Who), 999, 9900, 49, 99_900)
	if s.Must("ZSCORE", "sluice:{shared}:tenants", "acme") == "" {
		t.Error("nobody would sweep its organisation")
	}
	redisReserve(t, l, tailCall("b", "2"))
	if s.Must("ZSCORE", "sluice:{shared}:tenants", "b") == "" {
		t.Error("nobody would sweep an organisation that had no open call")
	}
}

// FLUSHALL leaves the process as it is: the data alone tells.
func TestRedisIsToldAgainAfterAFlush(t *testing.T) {
	t.Parallel()
	s := redistest.Single(t)
	d := newTailed(t, s.Client)
	d.work()
	eventually(t, "a round", func() bool { return d.l.State().Replicas == 1 })
	s.Must("FLUSHALL")
	d.finish()
}

func TestRedisClusterIsToldAgainWhatItLost(t *testing.T) {
	t.Parallel()
	nodes := redistest.Cluster(t)
	d := newTailed(t, nodes.Client)
	d.work()
	for _, n := range nodes {
		n.Must("SAVE")
	}
	d.work()
	d.agrees("before")
	for _, n := range nodes {
		n.Kill()
	}
	for _, n := range nodes {
		n.Start()
	}
	d.finish()
}

func TestRedisSentinelIsToldAgainWhatAReplicaMissed(t *testing.T) {
	t.Parallel()
	w := redistest.Sentinel(t)
	d := newTailed(t, w.Client)
	eventually(t, "the primary is known", func() bool {
		who := tailCall("acme", "").Who
		_, err := d.l.Peek(t.Context(), &who)
		return err == nil
	})
	d.work()
	if w.Primary.Must("WAIT", "1", "5000") != "1" {
		t.Fatal("the replica does not follow")
	}
	w.Lag()
	d.work()
	d.agrees("before")
	w.Primary.Kill()
	d.finish()
}

// What was acknowledged long before Redis was last seen with all its data is not kept.
func TestRedisTailIsBounded(t *testing.T) {
	s := redistest.Single(t)
	o := ratelimit.RedisOptions{Rules: rules(t, tailRules...), Tail: 300 * time.Millisecond, TailBytes: 300 << 10, Lease: 3 * time.Second}
	l := newRedis(t, s, o)
	for i := range 900 {
		c := tailCall("acme", fmt.Sprint(i))
		redisReserve(t, l, c)
		redisSettle(t, l, c, ratelimit.Cost{Requests: 1, Output: 1})
	}
	if n := l.TailBytes(); n == 0 || n > 300<<10+256<<10 {
		t.Errorf("%d bytes are kept", n)
	}
	eventually(t, "all are forgotten", func() bool { return l.TailBytes() == 0 })
}
