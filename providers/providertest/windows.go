package providertest

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"sluice/providers"
	"sluice/streaming"
)

// requestsBoth are a caller's request streamed and not.
func requestsBoth(t testing.TB) map[string]*providers.Request {
	t.Helper()
	return map[string]*providers.Request{"streamed": parse(t, "chat", defaultBody("chat")), "whole": parse(t, "chat-whole", defaultBody("chat-whole"))}
}

// ask sends one request to a server and listens to its end.
func (s *Suite) ask(t *testing.T, req *providers.Request, baseURL string) *record {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	p := streaming.NewProgress(time.Now())
	return listen(s.New(t, baseURL).Stream(ctx, req, p), p, 0)
}

func (s *Suite) refusals(t *testing.T) {
	if len(s.Refusals) == 0 {
		t.Error("no refusals: every protocol documents some")
	}
	for _, r := range s.Refusals {
		for how, req := range requestsBoth(t) {
			t.Run(r.Name+", "+how, func(t *testing.T) {
				settle(t)
				script := &Script{Status: r.Status, Type: r.Type, Header: r.Header, Body: []byte(r.Body)}
				if r.Type == "" {
					script.Type = "application/json"
				}
				got := s.ask(t, req, s.serve(t, script))
				judgeRefusal(t, got, &r.Want)
			})
		}
	}
}

func judgeRefusal(t *testing.T, got *record, want *providers.Error) {
	t.Helper()
	e := providers.AsError(got.err)
	if e == nil {
		t.Fatalf("no error but\n%s", got.golden())
	}
	for what, ok := range map[string]bool{
		"kind": e.Kind == want.Kind, "status": want.Status == 0 || e.Status == want.Status,
		"message": e.Message != "" && strings.Contains(e.Message, want.Message),
		"type":    want.Type == "" || e.Type == want.Type, "code": want.Code == "" || e.Code == want.Code,
		"param": want.Param == "" || e.Param == want.Param, "retry after": want.RetryAfter == 0 || e.RetryAfter == want.RetryAfter,
	} {
		if !ok {
			t.Errorf("%s: got %+v, want %+v", what, *e, *want)
		}
	}
	for _, fault := range got.faults {
		t.Error(fault)
	}
}

// wrongServers are what stands on a port that a configuration names by mistake, and
// how the error may be classed.
func (s *Suite) wrongServers(t *testing.T) {
	unreachable := []providers.ErrorKind{providers.Unreachable}
	other := []providers.ErrorKind{providers.Protocol, providers.Unreachable}
	broken := []providers.ErrorKind{providers.Protocol, providers.Truncated}
	servers := []struct {
		name  string
		serve func(t *testing.T) string
		want  []providers.ErrorKind
	}{
		{"nobody listens", func(t *testing.T) string { return tcpServer(t, "", true) }, unreachable},
		{"hangs up", func(t *testing.T) string { return tcpServer(t, "", false) }, unreachable},
		{"speaks something else", func(t *testing.T) string { return tcpServer(t, "SSH-2.0-OpenSSH_9.2p1\r\n", false) }, other},
		{"HTML", s.page(200, "text/html", "<!DOCTYPE html><html><body>It works!</body></html>"), other},
		{"HTML as 404", s.page(404, "text/html", "<html>not here</html>"), other},
		{"HTML as 405", s.page(405, "text/html", "<html>not so</html>"), other},
		{"HTML as 403", s.page(403, "text/html", "<html>not you</html>"), append(other, providers.UpstreamCredential)},
		{"HTML as 400", s.page(400, "text/html", "<html>plain HTTP to an HTTPS port</html>"), other},
		{"a detail as 404", s.page(404, "application/json", `{"detail":"Not Found"}`), other},
		{"a detail as 405", s.page(405, "application/json", `{"detail":"Method Not Allowed"}`), other},
		{"plain text as 404", s.page(404, "text/plain", "404 page not found\n"), other},
		{"plain text", s.page(200, "text/plain", "OK"), other},
		{"events of another", s.page(200, s.Type, "data: {\"hello\":\"world\"}\n\n"), other},
		{"empty", s.page(200, s.Type, ""), broken},
		{"empty JSON body", s.page(200, "application/json", ""), broken},
		{"other JSON", s.page(200, "application/json", `{"hello":"world"}`), other},
		{"a list", s.page(200, "application/json", `[]`), other},
		{"half a JSON body", s.page(200, "application/json", `{"hello":`), broken},
	}
	for _, srv := range servers {
		for how, req := range requestsBoth(t) {
			t.Run(srv.name+", "+how, func(t *testing.T) {
				settle(t)
				got := s.ask(t, req, srv.serve(t))
				e := providers.AsError(got.err)
				want := srv.want
				if s.Serve != nil { // a page is no answer of its protocol at all
					want = append(slices.Clone(want), other...)
				}
				if e == nil || !slices.Contains(want, e.Kind) || strings.Contains(e.Message, "<") {
					t.Errorf("got %v, want one of kinds %v; events:\n%s", e, want, got.golden())
				} else if e.Kind == providers.Protocol && !strings.Contains(e.Message, "expected") && !strings.Contains(e.Message, "base_url") {
					t.Errorf("%q does not say what was expected", e.Message)
				}
			})
		}
	}
}

// page is a server of HTTP that always sends the same.
func (s *Suite) page(status int, kind, body string) func(*testing.T) string {
	return func(t *testing.T) string {
		t.Helper()
		plain := Suite{}
		return plain.serve(t, &Script{Status: status, Type: kind, Body: []byte(body)})
	}
}

// tcpServer greets and hangs up; closed ones do not even listen.
func tcpServer(t *testing.T, greeting string, closed bool) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	url := "http://" + l.Addr().String()
	if closed {
		_ = l.Close()
		return url
	}
	var all sync.WaitGroup
	all.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = c.Write([]byte(greeting))
			_ = c.Close()
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		all.Wait()
	})
	return url
}

// window is a moment at which a caller can go.
type window struct {
	name string
	req  *providers.Request
	stop Stop
	body []byte
}

// windows are the moments in one answer, streamed and not. There are some in the
// middle: behind each message or line, as far as they are few.
func (s *Suite) windows(t *testing.T) []window {
	t.Helper()
	both, samples := requestsBoth(t), s.samples(t)
	var all []window
	for how, req := range both {
		all = append(all, window{name: how + ", before headers", req: req, stop: BeforeHeaders})
		if body := samples[req.Stream]; body != nil {
			all = append(all, window{name: how + ", before the first byte", req: req, stop: BehindHeaders})
			if !req.Stream && !s.Messages {
				all = append(all, window{name: how + ", half a body", req: req, stop: BehindBody, body: body[:len(body)/2]})
			}
		}
	}
	sample := samples[true]
	if sample == nil {
		t.Fatal("no complete streamed chat transcript to cancel")
	}
	lines := strings.SplitAfter(string(sample), "\n")
	step := max(1, len(lines)/8)
	for i := step; i < len(lines)-1; i += step {
		body := strings.Join(lines[:i], "")
		if s.play(t, both["streamed"], feed{text: []byte(body)}).complete {
			break // what comes now stands behind the end
		}
		all = append(all, window{name: fmt.Sprintf("streamed, behind %d lines", i), req: both["streamed"], stop: BehindBody, body: []byte(body)})
	}
	return all
}

// errLeft is why a caller's context ends here.
var errLeft = errors.New("the caller has left")

// cancel lets the caller go in every window: the server knows soon, the stream ends
// with the cause.
func (s *Suite) cancel(t *testing.T) {
	for _, w := range s.windows(t) {
		t.Run(w.name, func(t *testing.T) {
			settle(t)
			script := s.script(w.req, w.body)
			script.Stop = w.stop
			provider := s.New(t, s.serve(t, script))
			ctx, cancel := context.WithCancelCause(t.Context())
			defer cancel(nil)
			ended := make(chan error, 1)
			go func() {
				var last error
				for _, err := range provider.Stream(ctx, w.req, streaming.NewProgress(time.Now())) {
					last = err
				}
				ended <- last
			}()
			await(t, script.Stopped, "the server was not asked", patience)
			cancel(errLeft)
			await(t, script.Gone, "the server does not know that its caller has gone", Soon)
			select {
			case err := <-ended:
				if !errors.Is(err, errLeft) {
					t.Errorf("the stream ended with %v, want the cause of its context", err)
				}
			case <-time.After(Soon):
				t.Error("the stream goes on")
			}
		})
	}
	if !s.AtOnce {
		t.Run("stops ranging", s.stopsRanging)
	}
}

func await(t *testing.T, done <-chan struct{}, what string, limit time.Duration) {
	t.Helper()
	select {
	case <-done:
	case <-time.After(limit):
		t.Fatal(what)
	}
}

// stopsRanging: a caller who wants no more of a stream frees the server too.
func (s *Suite) stopsRanging(t *testing.T) {
	settle(t)
	req := parse(t, "chat", defaultBody("chat"))
	sample := s.samples(t)[true]
	script := s.script(req, sample[:len(sample)*3/4])
	if s.Messages {
		script.Body = sample[:1+strings.LastIndexByte(string(script.Body), '\n')]
	}
	script.Stop = BehindBody
	provider := s.New(t, s.serve(t, script))
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	content := false
	for batch, err := range provider.Stream(ctx, req, streaming.NewProgress(time.Now())) {
		if err != nil {
			t.Fatal(err)
		}
		for i := range batch {
			content = content || batch[i].Kind.Commits()
		}
		if content {
			break
		}
	}
	if ctx.Err() != nil || !content {
		t.Fatal("no content came")
	}
	await(t, script.Gone, "the server does not know that its caller wants no more", Soon)
}
