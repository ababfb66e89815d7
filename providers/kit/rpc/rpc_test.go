package rpc

import (
	"context"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"sluice/providers"
)

// ask calls a method of the standard health service at a URL.
func ask(t *testing.T, baseURL string, receive int) error {
	t.Helper()
	cc, err := Dial(Options{BaseURL: baseURL, Connect: time.Second, TLS: time.Second, Receive: receive,
		Header: http.Header{"User-Agent": {"sluice/test"}, "Authorization": {"Bearer sk-up"}}})
	if err != nil {
		t.Fatal(err)
	}
	defer cc.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	_, err = grpc_health_v1.NewHealthClient(cc).Check(ctx, &grpc_health_v1.HealthCheckRequest{})
	return err
}

// serve runs a gRPC server until the test ends.
func serve(t *testing.T, opts ...grpc.ServerOption) (s *grpc.Server, baseURL string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s = grpc.NewServer(opts...)
	grpc_health_v1.RegisterHealthServer(s, health.NewServer())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = s.Serve(l)
	}()
	t.Cleanup(func() { s.Stop(); <-done })
	return s, "http://" + l.Addr().String()
}

func TestCall(t *testing.T) {
	var got metadata.MD
	_, base := serve(t, grpc.UnaryInterceptor(func(ctx context.Context, req any, _ *grpc.UnaryServerInfo, h grpc.UnaryHandler) (any, error) {
		got, _ = metadata.FromIncomingContext(ctx)
		return h(ctx, req)
	}))
	if err := ask(t, base, 1<<20); err != nil {
		t.Fatal(err)
	}
	if got.Get("authorization")[0] != "Bearer sk-up" || !strings.HasPrefix(got.Get("user-agent")[0], "sluice/test") {
		t.Errorf("the server got %v", got)
	}
}

// TestStatuses maps what a server says.
func TestStatuses(t *testing.T) {
	for code, want := range map[codes.Code]providers.Error{
		codes.InvalidArgument:    {Kind: providers.Passed, Status: 400},
		codes.OutOfRange:         {Kind: providers.Passed, Status: 400},
		codes.FailedPrecondition: {Kind: providers.Passed, Status: 400},
		codes.NotFound:           {Kind: providers.Passed, Status: 404},
		codes.AlreadyExists:      {Kind: providers.Passed, Status: 409},
		codes.ResourceExhausted:  {Kind: providers.RateLimited},
		codes.Unavailable:        {Kind: providers.Overloaded},
		codes.Unauthenticated:    {Kind: providers.UpstreamCredential},
		codes.PermissionDenied:   {Kind: providers.UpstreamCredential},
		codes.DeadlineExceeded:   {Kind: providers.Timeout},
		codes.Unknown:            {Kind: providers.UpstreamFailed},
		codes.Internal:           {Kind: providers.UpstreamFailed},
		codes.Aborted:            {Kind: providers.UpstreamFailed},
		codes.DataLoss:           {Kind: providers.UpstreamFailed},
		codes.Canceled:           {Kind: providers.UpstreamFailed},
	} {
		_, base := serve(t, grpc.UnaryInterceptor(func(context.Context, any, *grpc.UnaryServerInfo, grpc.UnaryHandler) (any, error) {
			return nil, status.Error(code, "the server's words")
		}))
		e := Fault("up", "a service", ask(t, base, 1<<20))
		if e.Kind != want.Kind || e.Status != want.Status || e.Message != "the server's words" || e.Target != "up" {
			t.Errorf("%v: %+v", code, e)
		}
	}
	if e := Fault("up", "a service", status.Error(codes.Internal, "")); !strings.Contains(e.Message, "Internal") {
		t.Errorf("no words: %q", e.Message)
	}
	for _, text := range []string{"closing transport due to: write tcp 127.0.0.1:1->127.0.0.1:2: write: broken pipe", "error reading from server: EOF", "connection error: desc = \"refused\""} {
		if e := Fault("up", "a service", status.Error(codes.Unavailable, text)); e.Kind != providers.Unreachable || strings.Contains(e.Message, "127.0.0.1") {
			t.Errorf("%s: %+v", text, e)
		}
	}
	if e := Fault("up", "a service", io.EOF); e.Kind != providers.Truncated {
		t.Errorf("an end before the end: %+v", e)
	}
}

// TestBeforeReady: who hangs up before there was a connection of HTTP/2 is no server of
// gRPC, whichever read or write finds it out.
func TestBeforeReady(t *testing.T) {
	const broken = "write tcp 127.0.0.1:1->127.0.0.1:2: write: broken pipe"
	for _, text := range []string{
		broken, "write tcp 127.0.0.1:1->127.0.0.1:2: write: connection reset by peer",
		"connection error: desc = \"transport: failed to write client preface: " + broken + "\"",
		"connection error: desc = \"transport: failed to write initial settings frame: " + broken + "\"",
		"connection error: desc = \"error reading server preface: read tcp 127.0.0.1:1->127.0.0.1:2: read: connection reset by peer\"",
		"connection error: desc = \"error reading server preface: EOF\"",
	} {
		e := Fault("up", "a service", status.Error(codes.Unavailable, text))
		if e.Kind != providers.Protocol || !strings.Contains(e.Message, "expected a service over gRPC, and got something") || strings.Contains(e.Message, "127.0.0.1") {
			t.Errorf("%s: %+v", text, e)
		}
	}
}

// TestStrangers: whatever else listens there is named.
func TestStrangers(t *testing.T) {
	page := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "<html>") }))
	defer page.Close()
	h2 := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html")
		_, _ = io.WriteString(w, "<html>")
	}))
	h2.Config.Protocols = new(http.Protocols)
	h2.Config.Protocols.SetUnencryptedHTTP2(true)
	h2.Start()
	defer h2.Close()
	empty, other := grpc.NewServer(), listen(t)
	go func() { _ = empty.Serve(other) }()
	defer empty.Stop()
	mute := listen(t)
	go func() {
		for {
			c, err := mute.Accept()
			if err != nil {
				return
			}
			_, _ = io.WriteString(c, "SSH-2.0-OpenSSH_9.9\r\n")
			_, _ = io.Copy(io.Discard, c) // a reset could overtake the words
			_ = c.Close()
		}
	}()
	defer mute.Close()
	gone := listen(t)
	_ = gone.Close()
	for name, c := range map[string]struct {
		base string
		kind providers.ErrorKind
		says string
	}{
		"HTTP/1.1":        {page.URL, providers.Protocol, "an HTTP/1.1 server"},
		"a page":          {h2.URL, providers.Protocol, "text/html"},
		"another service": {"http://" + other.Addr().String(), providers.Protocol, "UNIMPLEMENTED"},
		"ssh":             {"http://" + mute.Addr().String(), providers.Protocol, "does not speak HTTP/2"},
		"nobody":          {"http://" + gone.Addr().String(), providers.Unreachable, "could not be reached, where a service"},
		"TLS at plain":    {strings.Replace(page.URL, "http:", "https:", 1), providers.Unreachable, "could not be reached"},
	} {
		t.Run(name, func(t *testing.T) {
			e := Fault("up", "a service", ask(t, c.base, 1<<20))
			if e.Kind != c.kind || !strings.Contains(e.Message, c.says) || c.kind == providers.Protocol && !strings.Contains(e.Message, "a service") {
				t.Errorf("%+v", e)
			}
		})
	}
}

func listen(t *testing.T) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func TestTooLarge(t *testing.T) {
	_, base := serve(t)
	if e := Fault("up", "a service", ask(t, base, 1)); e.Kind != providers.EventTooLarge {
		t.Errorf("%+v", e)
	}
}

// TestBroken: a server that goes away in the middle of a call.
func TestBroken(t *testing.T) {
	entered := make(chan struct{})
	s, base := serve(t, grpc.UnaryInterceptor(func(ctx context.Context, _ any, _ *grpc.UnaryServerInfo, _ grpc.UnaryHandler) (any, error) {
		close(entered)
		<-ctx.Done()
		return nil, ctx.Err()
	}))
	go func() { <-entered; s.Stop() }()
	if e := Fault("up", "a service", ask(t, base, 1<<20)); e.Kind != providers.Unreachable {
		t.Errorf("%+v", e)
	}
}

func TestDialRefuses(t *testing.T) {
	for _, base := range []string{"http://host:1/v2", "http://ho st"} {
		if cc, err := Dial(Options{BaseURL: base}); err == nil {
			cc.Close()
			t.Errorf("%s was taken", base)
		}
	}
}
