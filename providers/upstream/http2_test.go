package upstream

import (
	"context"
	"crypto/x509"
	"io"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"
)

// TestLifetimeOverHTTP2 makes the pool old by its clock: a new call dials.
func TestLifetimeOverHTTP2(t *testing.T) {
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, r.Proto+" "+r.RemoteAddr)
	}))
	server.EnableHTTP2 = true
	server.StartTLS()
	defer server.Close()
	roots := x509.NewCertPool()
	roots.AddCert(server.Certificate())
	o := kept
	o.Name, o.BaseURL, o.HTTP2, o.RootCAs, o.Lifetime = "up", server.URL, true, roots, time.Hour
	c := New(o)
	defer c.CloseIdle()
	from := func() string {
		a, err := c.Do(context.Background(), &Request{Method: http.MethodPost, Path: "/x", Body: []byte("{}")})
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(a.Body)
		a.Close(err == nil)
		if err != nil || len(text) < 9 || string(text[:8]) != "HTTP/2.0" {
			t.Fatalf("%q, %v", text, err)
		}
		return string(text)
	}
	first := from()
	if again := from(); again != first {
		t.Errorf("%s, then %s: not kept", first, again)
	}
	r := c.via.(*standard).client.(*rotating)
	r.now.Load().born = time.Now().Add(-2 * time.Hour)
	second := from()
	if again := from(); second == first || again != second {
		t.Errorf("%s, then %s and %s: want a new connection, and that one kept", first, second, again)
	}
}
