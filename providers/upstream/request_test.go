package upstream

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"reflect"
	"strings"
	"sync/atomic"
	"testing"

	"sluice/providers"
)

// got is what a server reads of a request.
type got struct {
	Method, Target, Host, Body string
	Header                     http.Header
}

// recorder is a server that tells what it reads.
func recorder(t *testing.T, listen string) (server *httptest.Server, last *atomic.Pointer[got]) {
	t.Helper()
	ln, err := net.Listen("tcp", listen)
	if err != nil {
		t.Skip(err)
	}
	last = new(atomic.Pointer[got])
	server = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		text, _ := io.ReadAll(r.Body)
		r.Header.Del("User-Agent") // net/http names itself where nobody is named
		last.Store(&got{r.Method, r.RequestURI, r.Host, string(text), r.Header})
	}))
	_ = server.Listener.Close()
	server.Listener = ln
	server.Start()
	t.Cleanup(server.Close)
	return server, last
}

// TestRequests sends each request over both transports; a server must read the same.
func TestRequests(t *testing.T) {
	server, last := recorder(t, "127.0.0.1:0")
	host := strings.TrimPrefix(server.URL, "http://")
	post := Request{Method: http.MethodPost, Path: "/chat/completions", ContentType: "application/json", Accept: "*/*", Body: []byte("{}")}
	for name, c := range map[string]struct {
		base    string // behind the host
		user    string
		options Options
		request Request
		target  string
		host    string
		header  http.Header // some of it
	}{
		"usual":             {base: "/v1", request: post, target: "/v1/chat/completions", header: http.Header{"Content-Type": {"application/json"}, "Accept": {"*/*"}, "Content-Length": {"2"}, "Accept-Encoding": {"identity"}}},
		"no path":           {request: Request{Method: http.MethodGet}, target: "/"},
		"only a query":      {request: Request{Method: http.MethodGet, Path: "?a=b"}, target: "/?a=b"},
		"slashes":           {base: "/v1//", request: post, target: "/v1/chat/completions"},
		"query of the base": {base: "/v1/?a=b", request: post, target: "/v1/chat/completions?a=b"},
		"both queries":      {base: "/v1?a=b", options: Options{Query: map[string]string{"c": "d e&f"}}, request: Request{Method: http.MethodGet, Path: "/x?y=z"}, target: "/v1/x?y=z&a=b&c=d+e%26f"},
		"escaped":           {base: "/a%2Fb/%C3%A4%20c", request: Request{Method: http.MethodGet, Path: "/m%2Fn/%3F"}, target: "/a%2Fb/%C3%A4%20c/m%2Fn/%3F"},
		"fragment":          {base: "/v1#top", request: post, target: "/v1/chat/completions"},
		"credentials":       {user: "me:secret@", base: "/v1", request: post, target: "/v1/chat/completions", header: http.Header{"Authorization": nil}}, // as net/http's Transport: they are not sent
		"host":              {options: Options{Header: http.Header{"Host": {"other.test"}}}, request: post, target: "/chat/completions", host: "other.test"},
		"header": {options: Options{Header: http.Header{"X-A": {"1", "2"}, "Authorization": {"Bearer k"}, "X-Empty": {""}}}, request: post, target: "/chat/completions",
			header: http.Header{"X-A": {"1", "2"}, "Authorization": {"Bearer k"}, "X-Empty": {""}}},
		"header of its own": {options: Options{Header: http.Header{"X-A": {"1", "2"}, "X-B": {"b"}}}, request: Request{Method: http.MethodGet, Header: http.Header{"X-A": {"3"}, "Accept": {"a/b"}}},
			target: "/", header: http.Header{"X-A": {"3"}, "X-B": {"b"}, "Accept": {"a/b"}}},
		"contradictions": {options: Options{Header: http.Header{"Content-Length": {"7"}, "Transfer-Encoding": {"chunked"}, "Accept-Encoding": {"br"}, "Content-Type": {"a/b"}, "Accept": {"a/b"}}}, request: post,
			target: "/chat/completions", header: http.Header{"Content-Length": {"2"}, "Transfer-Encoding": nil, "Accept-Encoding": {"identity"}, "Content-Type": {"application/json"}, "Accept": {"*/*"}}},
		"default types": {options: Options{Header: http.Header{"Content-Type": {"a/b"}, "Accept": {"c/d"}}}, request: Request{Method: http.MethodPost},
			target: "/", header: http.Header{"Content-Length": {"0"}, "Content-Type": {"a/b"}, "Accept": {"c/d"}}},
		"HEAD": {request: Request{Method: http.MethodHead, Path: "/x"}, target: "/x", header: http.Header{"Content-Length": nil}},
	} {
		t.Run(name, func(t *testing.T) {
			all := map[string]got{}
			for way, via := range ways {
				o := c.options
				o.Name, o.BaseURL = "up", "http://"+c.user+host+c.base
				up := New(o)
				if up.err != nil {
					t.Fatal(up.err)
				}
				up.via = via(o, up.base)
				a, err := up.Do(context.Background(), &c.request)
				if err != nil {
					t.Fatal(err)
				}
				a.Close(false)
				all[way] = *last.Load()
			}
			sent := all["plain"]
			if !reflect.DeepEqual(sent, all["net/http"]) {
				t.Errorf("plain %+v, net/http %+v", sent, all["net/http"])
			}
			wantHost := c.host
			if wantHost == "" {
				wantHost = host
			}
			if sent.Target != c.target || sent.Host != wantHost || sent.Body != string(c.request.Body) {
				t.Errorf("%s %s %s %q, want %s %s", sent.Method, sent.Host, sent.Target, sent.Body, wantHost, c.target)
			}
			for k, want := range c.header {
				if v := sent.Header[k]; !reflect.DeepEqual(v, want) {
					t.Errorf("%s: %q, want %q", k, v, want)
				}
			}
		})
	}
}

func TestIPv6(t *testing.T) {
	server, last := recorder(t, "[::1]:0")
	_, port, _ := net.SplitHostPort(server.Listener.Addr().String())
	for _, zone := range []string{"", "%25lo"} {
		for way, via := range ways {
			up := New(Options{Name: "up", BaseURL: "http://[::1" + zone + "]:" + port + "/v1"})
			up.via = via(Options{}, up.base)
			a, err := up.Do(context.Background(), &Request{Method: http.MethodGet, Path: "/models"})
			if err != nil {
				t.Fatalf("%s: %v", way, err)
			}
			a.Close(false)
			if g := last.Load(); g.Host != "[::1]:"+port || g.Target != "/v1/models" {
				t.Errorf("%s: %s %s", way, g.Host, g.Target)
			}
		}
	}
}

func TestAddresses(t *testing.T) {
	for base, want := range map[string][2]string{
		"http://a":               {"a:80", "a"},
		"http://a:":              {"a:80", "a"},
		"http://a:8080":          {"a:8080", "a:8080"},
		"http://[::1]":           {"[::1]:80", "[::1]"},
		"http://[fe80::1%25lo]/": {"[fe80::1%lo]:80", "[fe80::1]"},
		"http://me:pw@a:1":       {"a:1", "a:1"},
	} {
		h, ok := New(Options{BaseURL: base}).via.(*plain)
		if !ok || h.host != want[0] || h.layout.host != want[1] {
			t.Errorf("%s: %+v, want %v", base, h, want)
		}
	}
	if _, ok := New(Options{BaseURL: "http://münchen.test"}).via.(*standard); !ok {
		t.Error("a name beyond ASCII must be net/http's business")
	}
	for _, o := range []Options{{BaseURL: "https://a"}, {BaseURL: "http://a", Proxy: &url.URL{Scheme: "http", Host: "p"}}} {
		if _, ok := New(o).via.(*standard); !ok {
			t.Errorf("%+v must be net/http's business", o)
		}
	}
}

// What would break out of its place is refused before anything is sent, over both
// transports.
func TestSplitting(t *testing.T) {
	eachWay(t, func(t *testing.T, client func(*testing.T, string, Options) *Client) {
		address, posts := rawServer(t, func(conn *net.TCPConn, _ int) bool {
			answerKept(conn)
			return true
		})
		evil := []string{"a\r\nX-Evil: 1", "a\nX-Evil: 1", "a\rX", "a\x00b", "a\x7fb"}
		var options []Options
		var requests []Request
		for _, v := range evil {
			options = append(options, Options{Header: http.Header{"X-A": {v}}}, Options{Header: http.Header{"Host": {v}}}, Options{Header: http.Header{"Authorization": {"Bearer " + v}}})
			requests = append(requests, Request{ContentType: v}, Request{Accept: v}, Request{Header: http.Header{"X-A": {v}}}, Request{Header: http.Header{v: {"x"}}}, Request{Path: "/" + v}, Request{Method: v})
		}
		options = append(options, Options{Header: http.Header{"X A": {"b"}}}, Options{Header: http.Header{"": {"b"}}})
		requests = append(requests, Request{Path: "/a b"}, Request{Path: "/a HTTP/1.1"}, Request{Path: "/a#b"}, Request{Path: "@evil.test/"}, Request{Path: ".evil.test/"}, Request{Path: ":1/"}, Request{Path: "/ä"}, Request{Method: "GET /"})
		refused := func(c *Client, r Request, what string) {
			if r.Method == "" {
				r.Method = http.MethodPost
			}
			_, err := c.Do(context.Background(), &r)
			if e := providers.AsError(err); e == nil || e.Kind != providers.Internal {
				t.Errorf("%s: %v, want an internal error", what, err)
			} else if strings.Contains(err.Error(), "Bearer") {
				t.Errorf("%s: %v tells a secret", what, err)
			}
		}
		for _, o := range options {
			refused(client(t, address, o), Request{}, fmt.Sprintf("%+v", o.Header))
		}
		for _, r := range requests {
			refused(client(t, address, Options{}), r, fmt.Sprintf("%+v", r))
		}
		for _, base := range []string{"", "http:", "http:///x", "http://:80", "http://a/?b c", "http://a\r\n"} {
			refused(New(Options{Name: "up", BaseURL: base}), Request{}, base)
		}
		if n := posts.Load(); n != 0 {
			t.Errorf("%d requests arrived", n)
		}
	})
}
