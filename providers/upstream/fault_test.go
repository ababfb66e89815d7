package upstream

import (
	"net/http"
	"testing"
	"time"
)

func TestErrorShapes(t *testing.T) {
	for body, want := range map[string]Words{
		`{"error":{"message":"m","type":"t","param":"p","code":"c"}}`:  {"m", "t", "c", "p"},
		`{"error":{"message":"m","type":"t","param":null,"code":400}}`: {"m", "t", "400", ""},
		`{"error":"text"}`:                                       {Message: "text"},
		`{"error":"text","error_type":"overloaded"}`:             {Message: "text", Type: "overloaded"},
		`{"object":"error","message":"m","type":"t","code":404}`: {"m", "t", "404", ""},
		`{"error":{"message":"m","http_status_code":422}}`:       {Message: "m", Code: "422"},
		`{"detail":"Not Found"}`:                                 {Message: "Not Found"},
		`{"detail":[{"loc":["a"]}]}`:                             {Message: `[{"loc":["a"]}]`},
		`plain`:                                                  {Message: "plain"},
		`<html>nginx</html>`:                                     {},
		``:                                                       {},
		`null`:                                                   {},
		`{"error":null}`:                                         {},
		`{"error":{}}`:                                           {},
	} {
		if got := ReadWords([]byte(body)); got != want {
			t.Errorf("%s: %+v, want %+v", body, got, want)
		}
	}
}

func TestRetryAfter(t *testing.T) {
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	for _, c := range []struct {
		key, value string
		want       time.Duration
	}{
		{"Retry-After", "3", 3 * time.Second}, {"Retry-After", "0.5", 500 * time.Millisecond}, {"Retry-After", "-1", 0},
		{"Retry-After-Ms", "250", 250 * time.Millisecond}, {"Retry-After", "soon", 0},
		{"Retry-After", now.Add(time.Minute).Format(http.TimeFormat), time.Minute}, {"Retry-After", now.Add(-time.Minute).Format(http.TimeFormat), 0},
	} {
		if got := RetryAfter(Header{{c.key, c.value}}, now); got != c.want {
			t.Errorf("%s %s: %v, want %v", c.key, c.value, got, c.want)
		}
	}
}
