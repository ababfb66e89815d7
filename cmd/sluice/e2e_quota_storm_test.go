package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"sluice/providers/providertest/wall"
	"sluice/ratelimit/ledger"
	"sluice/ratelimit/ratelimittest/redistest"
)

// stormLimits let everything pass, so that what counts is what is left in the end: rates
// that are full again at once, places, and a budget that nothing flows into.
const stormLimits = `
[[prices]]
models = ["*"]
input = 1
output = 3
[[limits]]
id = "rates"
scope = "key"
requests_per_second = 1_000_000
tokens_per_second = 100_000_000
[[limits]]
id = "all"
scope = "global"
requests_per_second = 1_000_000
concurrent = 10_000
[[limits]]
id = "places"
scope = "org"
concurrent = 10_000
[[limits]]
id = "budget"
scope = "org"
usd_per_month = 1_000_000
[[keys]]
name = "storm"
key = "sk-test"
org = "storm"
[retry]
tries = 1
`

const (
	stormBudget  = 1_000_000 * 1_000_000_000 // nano-dollars
	stormWorkers = 32
	stormLease   = 3 * time.Second
)

// lossy is a way to Redis on which replies get lost, with their connections.
type lossy struct {
	addr string
	lose atomic.Int32 // how many replies are lost from now on
}

func newLossy(t testing.TB, to string) *lossy {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	way := &lossy{addr: l.Addr().String()}
	var open sync.WaitGroup
	t.Cleanup(func() { _ = l.Close(); open.Wait() })
	open.Go(func() {
		for {
			client, err := l.Accept()
			if err != nil {
				return
			}
			server, err := net.Dial("tcp", to)
			if err != nil {
				_ = client.Close()
				continue
			}
			open.Go(func() { _, _ = io.Copy(server, client); _ = server.Close() })
			open.Go(func() { way.replies(client, server) })
		}
	})
	return way
}

func (w *lossy) replies(client, server net.Conn) {
	defer client.Close()
	defer server.Close()
	buf := make([]byte, 64<<10)
	for {
		n, err := server.Read(buf)
		if err != nil || w.lose.Load() > 0 && w.lose.Add(-1) >= 0 {
			return
		}
		if _, err := client.Write(buf[:n]); err != nil {
			return
		}
	}
}

// stormCall is one call as its client saw it.
type stormCall struct {
	model  string
	tokens int  // that reached the client
	done   bool // it was told that the answer is complete
	left   bool // it left
	denied string
}

// rages says what goes wrong.
type rages struct {
	gateways bool // are killed
	redis    bool // is killed, and its replies get lost
}

// both tells a storm in which calls that a gateway has decided alone may die with it.
func (r rages) both() bool { return r.gateways && r.redis }

// storm is a number of calls while things go wrong.
type storm struct {
	t *testing.T
	n int
	rages
	wall   *wall.Wall
	server *redistest.Server
	way    *lossy
	text   [3]string // of the gateways' configurations
	slots  [3]atomic.Pointer[gatewayUnderTest]
	calls  []stormCall

	rows        map[rowKey]ledger.Row // as they were collected
	kills, dies int                   // of gateways and of Redis
}

// rowKey tells a row from all others: two of the same call and time are one.
type rowKey struct {
	id, end string
	posted  time.Time
}

func newStorm(t *testing.T, n int, r rages) *storm {
	base, w := wall.Start(t, wall.Keep(n+16))
	s := &storm{t: t, n: n, rages: r, wall: w, calls: make([]stormCall, n), rows: map[rowKey]ledger.Row{}}
	s.server = redistest.Single(t, "--appendonly", "yes", "--appendfsync", "always")
	s.way = newLossy(t, s.server.Addr)
	timeout := 500 * time.Millisecond
	if !r.redis {
		timeout = 10 * time.Second // a busy machine is no trouble
	}
	for i := range s.slots {
		s.text[i] = overWall(base, fmt.Sprintf("[redis]\nurl = \"redis://%s\"\ntimeout = %q\nlease = %q\ngateways = 3\n[data]\ndir = %q\n[log]\naccess = \"off\"\n",
			s.way.addr, timeout, stormLease, t.TempDir())+stormLimits)
		s.slots[i].Store(bootProcess(t, s.text[i]))
	}
	return s
}

// kinds of calls: how they are answered, and after how many tokens their clients leave.
func (s *storm) plan(i int, r *rand.Rand) (script string, stream bool, leave int, hurry time.Duration) {
	switch k := r.IntN(100); {
	case k < 10: // leaves when nothing comes any more: what it has got is what was generated
		k := 1 + r.IntN(12)
		return fmt.Sprintf("tokens=40,stall=%d", k), true, k, 0
	case k < 20: // leaves at any time
		return "tokens=400,delay=1ms", true, 1000, time.Duration(r.IntN(40)) * time.Millisecond
	case k < 22: // lives through a death or two
		return fmt.Sprintf("tokens=%d,delay=10ms", 100+r.IntN(100)), true, 1000, 0
	case k < 40:
		return fmt.Sprintf("tokens=%d", 1+r.IntN(40)), false, 1000, 0
	default:
		return fmt.Sprintf("tokens=%d", 1+r.IntN(40)), true, 1000, 0
	}
}

func (s *storm) one(client *http.Client, i int, r *rand.Rand) {
	script, stream, leave, hurry := s.plan(i, r)
	c := &s.calls[i]
	c.model = wallModel("s"+strconv.Itoa(i), script+",usage=every")
	ctx, cancel := context.WithTimeout(s.t.Context(), time.Minute)
	defer cancel()
	if hurry > 0 {
		time.AfterFunc(hurry, cancel)
	}
	g := s.slots[r.IntN(len(s.slots))].Load()
	res, err := client.Do(g.request(ctx, s.t, http.MethodPost, chatPath, chatBody(c.model, stream, `,"max_tokens":500`)))
	if err != nil {
		c.left = hurry > 0
		return
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(res.Body)
		c.denied = fmt.Sprintf("%d: %.300s", res.StatusCode, text)
		return
	}
	if !stream {
		_, err := io.ReadAll(res.Body)
		c.done = err == nil
		return
	}
	c.left = hurry > 0
	for lines := bufio.NewScanner(res.Body); lines.Scan(); {
		switch text := lines.Text(); {
		case text == "data: [DONE]":
			c.done = true
		case strings.HasPrefix(text, `data: {"error":`):
			c.denied = text
		case strings.Contains(text, `"delta":{"content":"`) && !strings.Contains(text, `"content":""`):
			if c.tokens++; c.tokens == leave {
				c.left = true
				return
			}
		}
	}
}

// rage lets things go wrong until the calls are over.
func (s *storm) rage(done <-chan struct{}) {
	r := rand.New(rand.NewPCG(1, 2))
	lose, collect := time.NewTicker(50*time.Millisecond), time.NewTicker(300*time.Millisecond)
	defer lose.Stop()
	defer collect.Stop()
	next := func(rages bool, least, most int) <-chan time.Time {
		if !rages {
			return nil
		}
		return time.After(time.Duration(least+r.IntN(most-least)) * time.Millisecond)
	}
	gateway, redis := next(s.gateways, 300, 1000), next(s.redis, 1000, 2000)
	for {
		select {
		case <-done:
			return
		case <-lose.C:
			if s.redis {
				s.way.lose.Store(2)
			}
		case <-collect.C:
			s.collect()
		case <-gateway:
			s.kill(r.IntN(len(s.slots)))
			gateway = next(true, 300, 2000)
		case <-redis:
			s.collect()
			s.server.Kill()
			s.server.Start()
			s.dies++
			redis = next(true, 2000, 6000)
		}
	}
}

func (s *storm) kill(i int) {
	s.slots[i].Load().kill(s.t)
	s.kills++
	s.slots[i].Store(bootProcess(s.t, s.text[i]))
}

// awaitSteady waits until Redis decides, and knows what was decided here.
func (g *gatewayUnderTest) awaitSteady(t testing.TB) {
	t.Helper()
	g.eventually(t, "it is not steady", func() bool {
		return g.metric(t, "gateway_quota_degraded") == 0 && g.metric(t, "gateway_settlements_waiting") == 0
	})
}

// kill ends a child process as kill -9 does.
func (g *gatewayUnderTest) kill(t testing.TB) {
	t.Helper()
	g.Client.CloseIdleConnections()
	g.Signal(t, syscall.SIGKILL)
	g.Wait()
}

// collect reads the rows that have come since, before the ledger forgets them.
func (s *storm) collect() {
	ctx, cancel := context.WithTimeout(s.t.Context(), 10*time.Second)
	defer cancel()
	book := ledger.NewRedis(redistest.ClientFor(s.t, s.server.Addr, nil), "sluice:", ledger.Retention{})
	had := len(s.rows)
	filter := ledger.Filter{Match: ledger.Match{Org: "storm"}, Limit: 1000}
	for {
		page, err := book.Rows(ctx, filter)
		if err != nil {
			s.t.Fatal(err)
		}
		known := false
		for _, row := range page.Rows {
			k := rowKey{row.ID, row.End, row.Posted}
			_, seen := s.rows[k]
			known = known || seen
			s.rows[k] = row
		}
		if known || page.Next == "" && had == 0 {
			return
		}
		if page.Next == "" {
			s.t.Fatal("the ledger has forgotten rows that nobody has read")
		}
		filter.Cursor = page.Next
	}
}

func (s *storm) run() {
	client := &http.Client{Transport: &http.Transport{DisableCompression: true, MaxIdleConnsPerHost: stormWorkers}}
	defer client.CloseIdleConnections()
	var all sync.WaitGroup
	done := make(chan struct{})
	for worker := range stormWorkers {
		all.Go(func() {
			r := rand.New(rand.NewPCG(3, uint64(worker)))
			for i := worker; i < s.n; i += stormWorkers {
				s.one(client, i, r)
			}
		})
	}
	go func() { all.Wait(); close(done) }()
	s.rage(done)
	s.way.lose.Store(0)
	for i := range s.slots {
		s.caughtUp(s.slots[i].Load())
	}
}

// caughtUp waits until Redis has taken what a gateway has kept for it, one settlement after the other.
func (s *storm) caughtUp(g *gatewayUnderTest) {
	for end := time.Now().Add(4 * time.Minute); time.Now().Before(end); <-time.After(50 * time.Millisecond) {
		if g.metric(s.t, "gateway_settlements_waiting") == 0 {
			break
		}
	}
	g.awaitSteady(s.t)
}

// rest waits until nothing is reserved any more.
func (s *storm) rest() {
	s.slots[0].Load().eventually(s.t, "something is still reserved", func() bool {
		for _, keys := range []string{"*:open", "*:c:*", "*:owed"} {
			if found, err := s.server.Do("KEYS", keys); err != nil || strings.TrimSpace(found) != "" {
				return false
			}
		}
		return true
	})
	s.collect()
}

// levels checks that rates and places are full, and that the budget lacks what the rows say.
func (s *storm) levels() {
	var spent int64
	for _, row := range s.rows {
		spent += row.Money
	}
	for i := range s.slots {
		for id, full := range map[string]float64{
			"rates.requests_per_second": 1e6, "rates.tokens_per_second": 1e8, "all.requests_per_second": 1e6, "all.concurrent": 1e4, "places": 1e4,
			"budget": float64(stormBudget-spent) / nano,
		} {
			s.level(s.slots[i].Load(), id, full)
		}
	}
}

// level wants a limit to have so much left.
func (s *storm) level(g *gatewayUnderTest, id string, want float64) {
	var got float64
	for end := time.Now().Add(patience); time.Now().Before(end); <-time.After(20 * time.Millisecond) {
		if got, _ = strconv.ParseFloat(g.left(s.t, id), 64); math.Abs(got-want) < 1e-7 {
			return
		}
	}
	s.t.Errorf("%s has %f left, want %f", id, got, want)
}

// check compares each call's row with what the upstream counted.
func (s *storm) check() {
	t := s.t
	records := map[string]wall.Request{}
	for _, q := range s.wall.Requests() {
		if _, twice := records[q.Model]; twice {
			t.Errorf("the upstream was asked twice for %s", q.Model)
		}
		records[q.Model] = q
	}
	rows := map[string][]ledger.Row{}
	ends := map[string]int{}
	var nobody int
	for _, row := range s.rows {
		ends[row.End]++
		if row.Model == "unknown" {
			nobody++
			continue
		}
		rows[row.Model] = append(rows[row.Model], row)
	}
	var sum struct{ ledger, upstream, none, denied, corrected int }
	for i := range s.calls {
		c := &s.calls[i]
		q, asked := records[c.model]
		row, n := s.merged(rows[c.model])
		switch {
		case n > 0 && c.denied == "":
			sum.ledger, sum.upstream, sum.corrected = sum.ledger+int(row.Output), sum.upstream+q.Tokens, sum.corrected+n-1
			s.compare(c, &row, &q)
		case c.denied != "" && (n > 0 || asked || !s.both() || !strings.HasPrefix(c.denied, "429")):
			t.Errorf("%s: %s, %d rows, asked %t", c.model, c.denied, n, asked)
		case c.denied != "": // a gateway that starts while Redis is away begins with empty buckets
			sum.denied++
		case asked:
			if sum.none++; c.done || !s.both() {
				t.Errorf("%s has no row: %+v, the upstream says %s", c.model, c, q.End)
			}
		}
	}
	if sum.none > s.kills*stormWorkers || sum.denied > s.n/10 {
		t.Errorf("%d calls have no row, %d were denied", sum.none, sum.denied)
	}
	t.Logf("%d calls, %d gateways killed, Redis killed %d times; ends %v, %d rows of calls that reached nobody, %d corrected, %d calls without a row, %d denied; the ledger has %d of %d tokens",
		s.n, s.kills, s.dies, ends, nobody, sum.corrected, sum.none, sum.denied, sum.ledger, sum.upstream)
}

// merged is what the rows of a call say together. There are two when the call was taken for lost,
// and its settlement was found in the journal of its gateway: the second has the difference.
func (s *storm) merged(rows []ledger.Row) (row ledger.Row, n int) {
	for _, r := range rows {
		if n++; n == 1 {
			row = r
			continue
		}
		if n > 2 || r.ID != row.ID || (r.End == "lost") == (row.End == "lost") {
			s.t.Errorf("rows of one call: %+v", rows)
		}
		sum := r
		if r.End == "lost" {
			sum = row
		}
		sum.Requests, sum.Input, sum.Output, sum.Money = row.Requests+r.Requests, row.Input+r.Input, row.Output+r.Output, row.Money+r.Money
		row = sum
	}
	return row, n
}

// compare holds a row against what the upstream wrote and what reached the client: they are
// the same, but where a client or a gateway was gone before the upstream knew.
func (s *storm) compare(c *stormCall, row *ledger.Row, q *wall.Request) {
	prompt, out, made := int(row.Input), int(row.Output), q.Tokens
	good := false
	switch {
	case row.End == "ok":
		good = prompt == q.Prompt && out == made && q.End == wall.Complete && row.Requests == 1 && !row.Estimated
	case row.End == "lost":
		good = !c.done && out <= made && prompt <= q.Prompt && (out == 0) == (prompt == 0) && row.Requests <= 1
	case row.End == "client_gone" && strings.Contains(c.model, "stall="):
		good = out == made && prompt == q.Prompt
	case row.End == "client_gone":
		good = c.left && !c.done && out >= c.tokens && out <= made && prompt <= q.Prompt
	}
	if !good || c.done && row.End != "ok" {
		s.t.Errorf("client %+v\nrow %+v\nupstream: %s, %d and %d tokens", *c, *row, q.End, q.Prompt, made)
	}
}

// runStorms makes n calls in all. What the ledger has in the end is what the upstream counted,
// each call once, and nothing stays reserved: while gateways are killed with kill -9 at any
// time; while Redis is, and its replies get lost; and while both happen. Then alone, answers that a
// gateway has decided on without Redis and that run when it is killed leave no row: a few.
func runStorms(t *testing.T, n int) {
	for name, r := range map[string]rages{"gateways": {gateways: true}, "redis": {redis: true}, "both": {true, true}} {
		t.Run(name, func(t *testing.T) {
			s := newStorm(t, n/3+1, r)
			s.run()
			s.rest()
			s.check()
			s.levels()
		})
	}
}

func TestQuotaStorm(t *testing.T) {
	t.Parallel()
	runStorms(t, 4_000)
}
