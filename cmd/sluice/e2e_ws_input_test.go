package main

import (
	"encoding/base64"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"sluice/providers/providertest/wall"
)

// badMessages are what no client should send. about is the stream that the error
// names; "" is an error of the connection.
var badMessages = []struct {
	name, message      string
	about              string
	status             int
	param, code, words string
}{
	{"no JSON", "{nope", "", 400, "", "malformed_frame", "JSON"},
	{"nothing", "", "", 400, "", "malformed_frame", "JSON"},
	{"cut JSON", `{"type":"create"`, "", 400, "", "malformed_frame", "JSON"},
	{"more than JSON", `{"type":"cancel"} {}`, "", 400, "", "malformed_frame", "JSON"},
	{"an array", `[]`, "", 400, "", "malformed_frame", "object"},
	{"a string", `"create"`, "", 400, "", "malformed_frame", "object"},
	{"too deep", `{"type":"create","request":` + strings.Repeat(`{"x":`, 8000), "", 400, "", "malformed_frame", "64"},
	{"no type", `{"stream_id":"a"}`, "", 400, "type", "invalid_frame", "type"},
	{"unknown type", `{"type":"frobnicate","stream_id":"a"}`, "", 400, "type", "invalid_frame", "create"},
	{"type is a number", `{"type":1}`, "", 400, "type", "invalid_frame", "type"},
	{"type twice", `{"type":"cancel","type":"create"}`, "", 400, "type", "invalid_frame", "twice"},
	{"empty stream_id", `{"type":"cancel","stream_id":""}`, "", 400, "stream_id", "invalid_frame", "256"},
	{"stream_id is null", `{"type":"cancel","stream_id":null}`, "", 400, "stream_id", "invalid_frame", "256"},
	{"stream_id is a number", `{"type":"cancel","stream_id":7}`, "", 400, "stream_id", "invalid_frame", "256"},
	{"stream_id with a space", `{"type":"cancel","stream_id":"a b"}`, "", 400, "stream_id", "invalid_frame", "256"},
	{"stream_id with an umlaut", `{"type":"cancel","stream_id":"ä"}`, "", 400, "stream_id", "invalid_frame", "256"},
	{"stream_id too long", `{"type":"cancel","stream_id":"` + strings.Repeat("a", 257) + `"}`, "", 400, "stream_id", "invalid_frame", "256"},
	{"request twice", `{"type":"create","request":{},"request":{}}`, "", 400, "request", "invalid_frame", "twice"},
	{"no request", `{"type":"create","stream_id":"a"}`, "a", 400, "request", "", "request"},
	{"request is null", `{"type":"create","stream_id":"a","request":null}`, "a", 400, "", "", "object"},
	{"request is an array", `{"type":"create","stream_id":"a","request":[]}`, "a", 400, "", "", "object"},
	{"request is empty", `{"type":"create","request":{ }}`, "0", 400, "model", "", "model"},
	{"no model", `{"type":"create","stream_id":"a","request":{` + message + `}}`, "a", 400, "model", "", "model"},
	{"model twice", `{"type":"create","stream_id":"a","request":{"model":"wall","Model":"x",` + message + `}}`, "a", 400, "model", "", "more than once"},
	{"no messages", `{"type":"create","stream_id":"a","request":{"model":"wall"}}`, "a", 400, "messages", "", "missing"},
	{"not streamed", `{"type":"create","stream_id":"a","request":{"model":"wall","stream":false,` + message + `}}`, "a", 400, "stream", "", "POST"},
	{"stream is a string", `{"type":"create","stream_id":"a","request":{"model":"wall","stream":"yes",` + message + `}}`, "a", 400, "stream", "", "true or false"},
	{"STREAM", `{"type":"create","stream_id":"a","request":{"model":"wall","STREAM":false,` + message + `}}`, "a", 400, "stream", "", "more than once"},
	{"stream with an escape", `{"type":"create","stream_id":"a","request":{"model":"wall","str\u0065am":false,` + message + `}}`, "a", 400, "stream", "", "more than once"},
	{"unknown model", `{"type":"create","stream_id":"a","request":{"model":"no-such-model",` + message + `}}`, "a", 404, "model", "model_not_found", "no-such-model"},
	{"large request", `{"type":"create","stream_id":"a","request":{"model":"wall","x":"` + strings.Repeat("x", 65<<10) + `",` + message + `}}`, "a", 413, "", "request_too_large", "64 KiB"},
}

// TestWebSocketInput sends what is wrong, each to a connection that had a good one
// before, and wants it to go on.
func TestWebSocketInput(t *testing.T) {
	t.Parallel()
	base, _ := wall.Start(t)
	g := boot(t, inputConfig(base))
	c := g.dial(t)
	for _, tc := range badMessages {
		t.Run(tc.name, func(t *testing.T) {
			c.send(t, "%s", tc.message)
			m := c.next(t)
			for m.Type == "accepted" {
				m = c.next(t)
			}
			f := m.fault
			if m.Type != "error" || m.Stream != tc.about || m.Status != tc.status || f.Param != tc.param || tc.code != "" && f.Code != tc.code || !strings.Contains(f.Message, tc.words) {
				t.Errorf("got %.500s", m.text)
			}
			if (m.Request != "") != (tc.about != "") {
				t.Errorf("the request is named %q", m.Request)
			}
			c.create(t, "good", "wall:tokens=2", "")
			if m := c.expect(t, "done", "good"); m.Finish != "stop" {
				t.Errorf("%+v", m)
			}
		})
	}
	// Members that nobody knows are no fault, nor is a stream that is asked for.
	c.send(t, `{"x":[1],"request":{"stream":true,"model":"wall:tokens=2",%s},"type":"create"}`, message)
	c.expect(t, "done", "0")
	c.send(t, `{"type":"create","request":{ "stream" : null,"model":"wall:tokens=2",%s}}`, message)
	c.expect(t, "done", "0")
}

// TestWebSocketFaultsInARow closes a connection that cannot be spoken with.
func TestWebSocketFaultsInARow(t *testing.T) {
	t.Parallel()
	base, _ := wall.Start(t)
	g := boot(t, overWall(base, "[websocket]\ncontrol_frame = \"1KiB\"\n[sizes]\nbody = \"64KiB\"\nbody_vision = \"64KiB\"\n[timeouts]\nrequest_body = \"500ms\"\n"))
	text := func(s string) func(*socketClient) error {
		return func(c *socketClient) error { return c.WriteMessage(websocket.TextMessage, []byte(s)) }
	}
	binary := func(c *socketClient) error { return c.WriteMessage(websocket.BinaryMessage, []byte(`{}`)) }
	slow := func(c *socketClient) error {
		w, err := c.NextWriter(websocket.TextMessage)
		if err == nil {
			_, err = io.WriteString(w, strings.Repeat(" ", 9000))
		}
		return err
	}
	json, kind, fine := text("{"), text(`{"type":"x"}`), text(`{"type":"cancel","stream_id":"none"}`)
	for _, tc := range []struct {
		name   string
		send   []func(*socketClient) error
		errors int
		close  int
	}{
		{"broken JSON", []func(*socketClient) error{json, json, json}, 3, 1007},
		{"unknown types", []func(*socketClient) error{kind, kind, kind}, 3, 1008},
		{"the last one counts", []func(*socketClient) error{json, kind, json}, 3, 1007},
		{"binary", []func(*socketClient) error{binary, binary, binary}, 3, 1003},
		{"not in a row", []func(*socketClient) error{json, json, fine, json, json, fine, kind, kind, fine}, 6, 0},
		{"no UTF-8", []func(*socketClient) error{text("{\"type\":\"cancel\",\"x\":\"\xff\"}")}, 1, 1007},
		{"a large message", []func(*socketClient) error{text(`{"x":"` + strings.Repeat("x", 100<<10) + `"}`)}, 1, 1009},
		{"a large cancel", []func(*socketClient) error{text(`{"type":"cancel","x":"` + strings.Repeat("x", 1<<10) + `"}`)}, 1, 1009},
		{"a message that never ends", []func(*socketClient) error{slow}, 1, 1008},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			c := g.dial(t)
			c.create(t, "runs", "wall:first=1m", "")
			c.next(t)
			for _, send := range tc.send {
				if err := send(c); err != nil {
					t.Fatal(err)
				}
			}
			errors, fine := 0, 0
			for errors+fine < len(tc.send) {
				switch m := c.next(t); m.Type {
				case "error":
					if errors++; m.Stream != "" || m.Status < 400 {
						t.Errorf("%+v", m)
					}
				case "cancelled":
					fine++
				default:
					t.Fatalf("%s", m.text)
				}
			}
			if errors != tc.errors {
				t.Errorf("%d errors, want %d", errors, tc.errors)
			}
			if tc.close != 0 {
				c.closed(t, tc.close)
			} else {
				c.cancel(t, "runs")
				c.expect(t, "cancelled", "runs")
			}
		})
	}
}

// TestWebSocketCredentials tries every way to say who calls.
func TestWebSocketCredentials(t *testing.T) {
	t.Parallel()
	g := boot(t, "[log]\nlevel = \"debug\"\n")
	secret := "sk-not-the-right-one"
	proto := func(list ...string) []string {
		h := []string{"Authorization: "}
		for _, p := range list {
			h = append(h, "Sec-WebSocket-Protocol: "+p)
		}
		return h
	}
	for _, tc := range []struct {
		name    string
		headers []string
		status  int
		code    string
	}{
		{"bearer", nil, 101, ""},
		{"api-key", []string{"Authorization: ", "Api-Key: " + testKey}, 101, ""},
		{"subprotocol", proto("sluice.v1", "openai-insecure-api-key."+testKey), 101, ""},
		{"subprotocol, the key first", proto("openai-insecure-api-key."+testKey, "sluice.v1"), 101, ""},
		{"both the same", []string{"Sec-WebSocket-Protocol: sluice.v1", "Sec-WebSocket-Protocol: openai-insecure-api-key." + testKey}, 101, ""},
		{"none", []string{"Authorization: "}, 401, "invalid_api_key"},
		{"a wrong key", []string{"Authorization: Bearer " + secret}, 401, "invalid_api_key"},
		{"a wrong key as subprotocol", proto("sluice.v1", "openai-insecure-api-key."+secret), 401, "invalid_api_key"},
		{"two keys", []string{"Sec-WebSocket-Protocol: sluice.v1", "Sec-WebSocket-Protocol: openai-insecure-api-key." + secret}, 400, ""},
		{"two keys as subprotocols", proto("sluice.v1", "openai-insecure-api-key."+testKey, "openai-insecure-api-key."+secret), 400, ""},
		{"no key in the query", []string{"Authorization: "}, 401, "invalid_api_key"},
		{"only the key", proto("openai-insecure-api-key." + testKey), 400, "subprotocol_missing"},
		{"another protocol", []string{"Sec-WebSocket-Protocol: realtime"}, 400, "subprotocol_missing"},
		{"no ticket", proto("sluice.v1", "sluice-ticket."), 403, "invalid_ticket"},
		{"a key as ticket", proto("sluice.v1", "sluice-ticket."+testKey), 403, "invalid_ticket"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			path := chatPath
			if strings.Contains(tc.name, "query") {
				path += "?api_key=" + testKey + "&key=" + testKey + "&token=" + testKey
			}
			c, res := g.handshake(t, path, tc.headers...)
			if res.StatusCode != tc.status {
				t.Fatalf("status %d, want %d", res.StatusCode, tc.status)
			}
			if c == nil {
				body, _ := io.ReadAll(res.Body)
				if e := readError(t, string(body)); tc.code != "" && e.Code != tc.code {
					t.Errorf("%+v", e)
				}
				if res.Header.Get("Sec-WebSocket-Protocol") != "" {
					t.Errorf("%v", res.Header)
				}
				return
			}
			want := ""
			if strings.Contains(fmt.Sprint(tc.headers), "sluice.v1") {
				want = "sluice.v1"
			}
			if c.Subprotocol() != want || strings.Contains(fmt.Sprint(c.header), testKey) {
				t.Errorf("answered with %v", c.header)
			}
			c.create(t, "a", "demo-echo", "")
			c.expect(t, "done", "a")
		})
	}
	g.awaitLine(t, "the last answer", func(l map[string]string) bool { return l["msg"] == "refused" && l["end"] == "forbidden" })
	for _, s := range []string{secret, testKey} {
		if strings.Contains(g.Logs(), s) {
			t.Errorf("the log holds %q", s)
		}
	}
}

// TestWebSocketTickets takes tickets, and uses them well and badly.
func TestWebSocketTickets(t *testing.T) {
	t.Parallel()
	const secret = "[websocket]\nticket_secret = \"0123456789abcdef0123456789abcdef\"\nticket_lifetime = \"1s\"\n[log]\nlevel = \"debug\"\n"
	g, twin := boot(t, secret), boot(t, secret)
	stranger := boot(t, "")
	take := func(t *testing.T, g *gatewayUnderTest) string {
		t.Helper()
		a := g.do(t, http.MethodPost, "/tickets", "")
		if a.status != 200 || a.header.Get("Cache-Control") != "no-store" {
			t.Fatalf("status %d: %s", a.status, a.body)
		}
		var ticket string
		var ms int
		if _, err := fmt.Sscanf(strings.ReplaceAll(a.body, `"`, " "), "{ object : ticket , ticket : %s , expires_in_ms :%d}", &ticket, &ms); err != nil {
			t.Fatalf("%v: %s", err, a.body)
		}
		if strings.Contains(ticket, "=") || strings.Contains(a.body, testKey) {
			t.Errorf("%s", a.body)
		}
		return ticket
	}
	use := func(t *testing.T, g *gatewayUnderTest, ticket string) (status int, code string) {
		t.Helper()
		c, res := g.handshake(t, chatPath, "Authorization: ", "Origin: "+strings.TrimSuffix(g.URL, "/v1"), "Sec-WebSocket-Protocol: sluice.v1", "Sec-WebSocket-Protocol: sluice-ticket."+ticket)
		if c == nil {
			body, _ := io.ReadAll(res.Body)
			return res.StatusCode, readError(t, string(body)).Code
		}
		c.create(t, "a", "demo-echo", "")
		c.expect(t, "done", "a")
		return res.StatusCode, c.Subprotocol()
	}
	check := func(name string, ticket func(t *testing.T) (*gatewayUnderTest, string), status int, code string) {
		t.Run(name, func(t *testing.T) {
			at, text := ticket(t)
			if s, c := use(t, at, text); s != status || c != code {
				t.Errorf("%d %q, want %d %q", s, c, status, code)
			}
		})
	}
	spent := take(t, g)
	check("good", func(*testing.T) (*gatewayUnderTest, string) { return g, spent }, 101, "sluice.v1")
	check("a second time", func(*testing.T) (*gatewayUnderTest, string) { return g, spent }, 403, "ticket_spent")
	check("at another replica", func(t *testing.T) (*gatewayUnderTest, string) { return twin, take(t, g) }, 101, "sluice.v1")
	check("at another gateway", func(t *testing.T) (*gatewayUnderTest, string) { return g, take(t, stranger) }, 403, "invalid_ticket")
	check("changed", func(t *testing.T) (*gatewayUnderTest, string) {
		b, err := base64.RawURLEncoding.DecodeString(take(t, g))
		if err != nil {
			t.Fatal(err)
		}
		b[20] ^= 0x40 // of its end
		return g, base64.RawURLEncoding.EncodeToString(b)
	}, 403, "invalid_ticket")
	check("too late", func(t *testing.T) (*gatewayUnderTest, string) {
		ticket := take(t, g)
		<-time.After(1010 * time.Millisecond)
		return g, ticket
	}, 403, "ticket_expired")
	if a := g.do(t, http.MethodPost, "/tickets", "", "Authorization: Bearer sk-wrong"); a.status != 401 {
		t.Errorf("a ticket for a wrong key: %d", a.status)
	}
	if line := g.accessLine(t, "demo-echo"); line["key"] != "test" {
		t.Errorf("access line: %v", line)
	}
	if strings.Contains(g.Logs(), spent) {
		t.Error("the log holds a ticket")
	}
}

// TestWebSocketOrigins lets in pages of the gateway's own origin and of those allowed,
// and whoever is no page.
func TestWebSocketOrigins(t *testing.T) {
	t.Parallel()
	strict := boot(t, "")
	lax := boot(t, "[server]\ntrusted_proxies = [\"127.0.0.0/8\"]\n[websocket]\norigins = [\"https://chat.example\"]\n")
	open := boot(t, "[websocket]\norigins = [\"*\"]\n")
	own := func(g *gatewayUnderTest) string { return "Origin: " + strings.TrimSuffix(g.URL, "/v1") }
	for _, tc := range []struct {
		name    string
		g       *gatewayUnderTest
		headers []string
		status  int
	}{
		{"no page", strict, nil, 101},
		{"its own", strict, []string{own(strict)}, 101},
		{"its own behind TLS", strict, []string{strings.Replace(own(strict), "http:", "https:", 1)}, 101},
		{"another", strict, []string{"Origin: https://evil.example"}, 403},
		{"another port", strict, []string{"Origin: http://127.0.0.1:1"}, 403},
		{"null", strict, []string{"Origin: null"}, 403},
		{"nonsense", strict, []string{"Origin: ::"}, 403},
		{"a proxy that is not trusted", strict, []string{"Origin: https://evil.example", "X-Forwarded-Host: evil.example"}, 403},
		{"allowed", lax, []string{"Origin: https://chat.example"}, 101},
		{"allowed, in capitals", lax, []string{"Origin: HTTPS://CHAT.EXAMPLE"}, 101},
		{"not this one", lax, []string{"Origin: https://chat.example.evil"}, 403},
		{"behind a proxy", lax, []string{"Origin: https://front.example", "X-Forwarded-Host: front.example"}, 101},
		{"behind two", lax, []string{"Origin: https://front.example", "X-Forwarded-Host: liar.example, front.example"}, 101},
		{"a client that forwards", lax, []string{"Origin: https://liar.example", "X-Forwarded-Host: liar.example, front.example"}, 403},
		{"any", open, []string{"Origin: https://evil.example"}, 101},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c, res := tc.g.handshake(t, chatPath, tc.headers...)
			if res.StatusCode != tc.status {
				t.Fatalf("status %d, want %d", res.StatusCode, tc.status)
			}
			if c == nil {
				body, _ := io.ReadAll(res.Body)
				if e := readError(t, string(body)); e.Code != "origin_not_allowed" {
					t.Errorf("%+v", e)
				}
			}
		})
	}
	// The origin is looked at before the credential: a page learns nothing of keys.
	if _, res := strict.handshake(t, chatPath, "Origin: https://evil.example", "Authorization: Bearer sk-wrong"); res.StatusCode != 403 {
		t.Errorf("status %d", res.StatusCode)
	}
}
