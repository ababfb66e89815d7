package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/chromedp"

	"sluice/providers/providertest/wall"
)

// This file is what the tests with a real browser stand on: Chromium, the pages, and
// a door to the gateways that the tests can shut.

// browserNames are what Chromium and its kin are called; .ci/setup knows the same.
var browserNames = []string{"chromium", "chromium-browser", "google-chrome", "google-chrome-stable"}

// sharedBrowser is one Chromium for all tests, each of which has its own profile in it.
var sharedBrowser struct {
	mu    sync.Mutex
	users int
	ctx   context.Context
	end   func()
	err   error
}

// startBrowser returns a context of the one browser. The last test to end ends it.
func startBrowser(t *testing.T) context.Context {
	t.Helper()
	b := &sharedBrowser
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.users == 0 {
		b.ctx, b.end, b.err = launchBrowser()
	}
	if b.err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal(b.err)
		}
		t.Skipf("SKIPPED, NOTHING IS PROVEN IN A BROWSER: %v", b.err)
	}
	b.users++
	t.Cleanup(func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		if b.users--; b.users == 0 {
			b.end()
		}
	})
	return b.ctx
}

func launchBrowser() (context.Context, func(), error) {
	var binary string
	for _, name := range browserNames {
		if found, err := exec.LookPath(name); err == nil {
			binary = found
			break
		}
	}
	if binary == "" {
		return nil, nil, fmt.Errorf("no browser: apt-get install %s", browserNames[0])
	}
	options := append(slices.Clone(chromedp.DefaultExecAllocatorOptions[:]), chromedp.ExecPath(binary), chromedp.Flag("no-proxy-server", true))
	if os.Getuid() == 0 {
		options = append(options, chromedp.NoSandbox) // it cannot be had as root
	}
	allocator, endAllocator := chromedp.NewExecAllocator(context.Background(), options...)
	ctx, end := chromedp.NewContext(allocator)
	if err := chromedp.Do(ctx); err != nil { // starts it
		end()
		endAllocator()
		return nil, nil, fmt.Errorf("starting %s: %w", binary, err)
	}
	return ctx, func() { end(); endAllocator() }, nil
}

// tab is a page in a browser.
type tab struct {
	ctx    context.Context
	names  int
	client string // address of the client's module
}

// openTab shows a page in a profile of its own, so that its connections are its own
// too, and gives it the client that a gateway serves. Scripts of the test come from
// scripts, so a page of the gateway itself will do.
func openTab(t *testing.T, pageURL, scripts, gateway string) *tab {
	t.Helper()
	ctx, end := chromedp.NewContext(startBrowser(t), chromedp.WithNewBrowserContext())
	t.Cleanup(end)
	p := &tab{ctx: ctx, client: strings.TrimSuffix(gateway, "/v1") + "/static/sluice-client.js"}
	if err := chromedp.Do(ctx, chromedp.Navigate(pageURL)); err != nil {
		t.Fatal(err)
	}
	evaluate[bool](t, p, fmt.Sprintf("import(%q).then(() => true)", scripts+"/page.js?client="+url.QueryEscape(p.client)))
	t.Cleanup(func() {
		if faults := evaluate[[]string](t, p, "(page.close(), page.faults())"); len(faults) > 0 {
			t.Errorf("in the page: %q", faults)
		}
	})
	return p
}

// evaluate returns what an expression, or its promise, comes to in the page.
func evaluate[T any](t *testing.T, p *tab, expression string) T {
	t.Helper()
	ctx, cancel := context.WithTimeout(p.ctx, 2*patience)
	defer cancel()
	value, err := chromedp.Run(ctx, chromedp.Evaluate[T](expression, chromedp.EvalAwaitPromise))
	if err != nil {
		t.Fatalf("%s: %v", expression, err)
	}
	return value
}

// pageTask is an answer that a page asks for.
type pageTask struct {
	Options    map[string]any `json:"options"`
	Request    map[string]any `json:"request"`
	LeaveAfter int            `json:"leave_after,omitempty"`
	Complete   bool           `json:"complete,omitempty"`
}

// pageReport is what the page saw of it.
type pageReport struct {
	Deltas   []string
	At       []int // of each delta, in ms
	Chunks   int
	Accepted []struct {
		ID       string `json:"request_id"`
		Position int
	}
	LeftAt int64 `json:"left_at"` // Unix time in ms
	Answer *struct {
		Content, Reasoning string
		Finish             string `json:"finish_reason"`
		Usage              *usage
		RequestID          string `json:"request_id"`
		TTFT               *int   `json:"ttft_ms"`
		Total              *int   `json:"total_ms"`
		Tools              []struct {
			ID, Type string
			Function struct{ Name, Arguments string }
		} `json:"tool_calls"`
	}
	Error *struct {
		Name, Message, Type, Code, Param string
		Status                           int
		RetryAfter                       int    `json:"retry_after_ms"`
		RequestID                        string `json:"request_id"`
		CloseCode                        int    `json:"close_code"`
		Partial                          *string
	}
}

func (r *pageReport) text() string { return strings.Join(r.Deltas, "") }

// start begins an answer and returns its name in the page.
func (p *tab) start(t *testing.T, task pageTask) string {
	t.Helper()
	p.names++
	name := fmt.Sprint("answer", p.names)
	text, err := json.Marshal(task)
	if err != nil {
		t.Fatal(err)
	}
	evaluate[bool](t, p, fmt.Sprintf("(page.start(%q, %s), true)", name, text))
	return name
}

// begun waits for the first delta, or for the end.
func (p *tab) begun(t *testing.T, name string) {
	t.Helper()
	evaluate[bool](t, p, fmt.Sprintf("page.begun(%q)", name))
}

// leave makes the caller stop an answer.
func (p *tab) leave(t *testing.T, name string) {
	t.Helper()
	evaluate[bool](t, p, fmt.Sprintf("(page.leave(%q), true)", name))
}

func (p *tab) finished(t *testing.T, name string) pageReport {
	t.Helper()
	return evaluate[pageReport](t, p, fmt.Sprintf("page.finished(%q)", name))
}

func (p *tab) ask(t *testing.T, task pageTask) pageReport {
	t.Helper()
	return p.finished(t, p.start(t, task))
}

// complete fails the test unless a report is of a whole answer of so many tokens.
func (r *pageReport) complete(t *testing.T, tokens int) {
	t.Helper()
	if r.Error != nil || r.Answer == nil {
		t.Fatalf("not an answer: %+v", r.Error)
	}
	if n, err := wall.Verify("wall", r.Answer.Content); n != tokens || err != nil {
		t.Errorf("%d of %d tokens: %v", n, tokens, err)
	}
	if r.Answer.Finish == "" || r.text() != r.Answer.Content || r.Answer.RequestID == "" || r.Answer.Usage == nil || r.Answer.Usage.Completion != tokens {
		t.Errorf("finish %q, deltas %q, content %q, id %q, usage %+v", r.Answer.Finish, r.text(), r.Answer.Content, r.Answer.RequestID, r.Answer.Usage)
	}
}

// servePages serves an empty page and the scripts of the tests, which may be loaded
// from anywhere. Its POST /ticket is an application of its own that has the key and
// gives its pages tickets.
func servePages(t *testing.T, gateway func() *gatewayUnderTest) *httptest.Server {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		_, _ = io.WriteString(w, "<!doctype html><title>page</title><link rel=icon href=data:,>")
	})
	scripts := http.FileServer(http.Dir("testdata/browser"))
	mux.HandleFunc("GET /page.js", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Access-Control-Allow-Origin", "*")
		scripts.ServeHTTP(w, r)
	})
	mux.HandleFunc("POST /ticket", func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, gateway().ticket(t))
	})
	s := httptest.NewServer(mux)
	t.Cleanup(s.Close)
	return s
}

// ticket asks a gateway for a ticket.
func (g *gatewayUnderTest) ticket(t testing.TB) string {
	t.Helper()
	a := g.do(t, http.MethodPost, "/tickets", "")
	var got struct {
		Object, Ticket string
		ExpiresIn      int `json:"expires_in_ms"`
	}
	if err := json.Unmarshal([]byte(a.body), &got); err != nil || a.status != 200 || got.Object != "ticket" || got.Ticket == "" || got.ExpiresIn <= 0 {
		t.Errorf("%d, %v: %s", a.status, err, a.body)
	}
	return got.Ticket
}

// door is a TCP address before gateways that come and go, as a balancer has it.
type door struct {
	addr   string
	ln     net.Listener
	mu     sync.Mutex
	target string // "": nobody is there
	frozen bool   // bytes are taken and go nowhere
	thaw   chan struct{}
	conns  map[net.Conn]struct{}
	opened int
	all    sync.WaitGroup
}

func newDoor(t *testing.T) *door {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	d := &door{addr: ln.Addr().String(), ln: ln, conns: map[net.Conn]struct{}{}, thaw: make(chan struct{})}
	d.all.Go(d.serve)
	t.Cleanup(func() {
		_ = ln.Close()
		close(d.thaw)
		d.lead("")
		d.cut()
		d.all.Wait()
	})
	return d
}

// URL is of the API behind the door.
func (d *door) URL() string { return "http://" + d.addr + "/v1" }

// lead makes new connections go to a gateway, or nowhere.
func (d *door) lead(baseURL string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.target = strings.TrimSuffix(strings.TrimPrefix(baseURL, "http://"), "/v1")
}

// cut closes all connections.
func (d *door) cut() {
	d.mu.Lock()
	defer d.mu.Unlock()
	for c := range d.conns {
		_ = c.Close()
	}
}

// freeze makes all connections, old and new, half-open: nothing passes any more.
func (d *door) freeze() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.frozen = true
}

// count returns how many connections there have been.
func (d *door) count() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.opened
}

func (d *door) serve() {
	for {
		client, err := d.ln.Accept()
		if err != nil {
			return
		}
		d.mu.Lock()
		d.opened++
		target := d.target
		d.mu.Unlock()
		server, err := net.Dial("tcp", target)
		if target == "" || err != nil {
			_ = client.Close()
			continue
		}
		d.mu.Lock()
		d.conns[client], d.conns[server] = struct{}{}, struct{}{}
		d.mu.Unlock()
		d.all.Go(func() { d.pass(server, client) })
		d.all.Go(func() { d.pass(client, server) })
	}
}

// pass carries bytes one way until either side closes.
func (d *door) pass(to, from net.Conn) {
	defer func() {
		_ = to.Close()
		_ = from.Close()
		d.mu.Lock()
		defer d.mu.Unlock()
		delete(d.conns, to)
		delete(d.conns, from)
	}()
	buf := make([]byte, 32<<10)
	for {
		n, err := from.Read(buf)
		d.mu.Lock()
		frozen := d.frozen
		d.mu.Unlock()
		if frozen {
			<-d.thaw
			return
		}
		if err != nil {
			return
		}
		if _, err := to.Write(buf[:n]); err != nil {
			return
		}
	}
}

// transports are the two ways of the client.
var transports = []string{"websocket", "sse"}

// asker makes tasks for a client over one transport.
type asker struct {
	baseURL, key, transport string
	more                    map[string]any // options
}

func (a asker) options(more map[string]any) map[string]any {
	o := map[string]any{"baseURL": a.baseURL, "apiKey": a.key, "transport": a.transport}
	for _, options := range []map[string]any{a.more, more} {
		for k, v := range options {
			if o[k] = v; v == nil {
				delete(o, k)
			}
		}
	}
	return o
}

func (a asker) chat(model string) pageTask {
	return pageTask{Options: a.options(nil), Request: map[string]any{"model": model, "messages": []any{map[string]any{"role": "user", "content": words}}}}
}

// upTo is when a page left, as the upstream sees it.
func upTo(q wall.Request, leftAt int64) time.Duration { return q.Gone.Sub(time.UnixMilli(leftAt)) }
