package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"
)

func TestDuration(t *testing.T) {
	for _, tc := range []struct {
		in   string
		want time.Duration
		text string
	}{
		{"30s", 30 * time.Second, "30s"},
		{"10m", 10 * time.Minute, "10m"},
		{"1h30m", 90 * time.Minute, "1h30m"},
		{"24h", 24 * time.Hour, "24h"},
		{"90s", 90 * time.Second, "1m30s"},
		{"1h0m5s", time.Hour + 5*time.Second, "1h0m5s"},
		{"1.5ms", 1500 * time.Microsecond, "1.5ms"},
		{"0", 0, "0s"},
	} {
		var d Duration
		if err := d.UnmarshalText([]byte(tc.in)); err != nil || d.Std() != tc.want || d.String() != tc.text {
			t.Errorf("%q: %v, %v", tc.in, d, err)
		}
		var again Duration
		if err := again.UnmarshalText([]byte(d.String())); err != nil || again != d {
			t.Errorf("%q does not read back: %v", d, err)
		}
	}
	for _, in := range []string{"", "30", "-1s", "ten", "1d", "30 s"} {
		if err := new(Duration).UnmarshalText([]byte(in)); err == nil {
			t.Errorf("%q is taken", in)
		}
	}
}

func TestSize(t *testing.T) {
	for _, tc := range []struct {
		in   string
		want Size
		text string
	}{
		{"0", 0, "0B"}, {"1", 1, "1B"}, {"1000", 1000, "1000B"}, {"4096", 4096, "4KiB"},
		{"64KiB", 64 << 10, "64KiB"}, {"10MiB", 10 << 20, "10MiB"}, {"1536KiB", 1536 << 10, "1536KiB"},
		{"2GiB", 2 << 30, "2GiB"}, {"1 mib", 1 << 20, "1MiB"}, {"5B", 5, "5B"},
		{"1KB", 1000, "1000B"}, {"3MB", 3e6, "3000000B"}, {"1GB", 1e9, "1000000000B"},
	} {
		var s Size
		if err := s.UnmarshalText([]byte(tc.in)); err != nil || s != tc.want || s.String() != tc.text {
			t.Errorf("%q: %d %s, %v", tc.in, int64(s), s, err)
		}
		var again Size
		if err := again.UnmarshalText([]byte(s.String())); err != nil || again != s {
			t.Errorf("%q does not read back: %v", s, err)
		}
	}
	for _, in := range []string{"", "MiB", "1.5MiB", "10M", "-1", "9223372036854775808", "9007199254740992KiB", "0x10"} {
		if err := new(Size).UnmarshalText([]byte(in)); err == nil {
			t.Errorf("%q is taken", in)
		}
	}
}

// TestSecretsStayHidden prints secrets in every way that the language offers.
func TestSecretsStayHidden(t *testing.T) {
	s := newSecret("hidden")
	p := new(ProxyURL)
	if err := p.UnmarshalText([]byte("http://user:hidden@proxy.example:1")); err != nil {
		t.Fatal(err)
	}
	type inner struct{ secret Secret }
	values := []any{
		s, &s, []Secret{s}, map[string]Secret{"a": s}, struct{ S Secret }{s}, inner{s}, &inner{s},
		Key{Key: s}, Upstream{APIKey: s, Headers: map[string]Secret{"x": s}, Proxy: *p}, *p, p,
		fmt.Errorf("wrapped: %v", s),
	}
	var out bytes.Buffer
	text, asJSON := slog.New(slog.NewTextHandler(&out, nil)), slog.New(slog.NewJSONHandler(&out, nil))
	for _, v := range values {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
			fmt.Fprintf(&out, verb+"\n", v)
		}
		if err := json.NewEncoder(&out).Encode(v); err != nil {
			t.Error(err)
		}
		text.Info("m", "v", v)
		asJSON.Info("m", "v", v)
	}
	for _, bad := range []string{"hidden", "68696464656e", "104 105"} {
		if strings.Contains(out.String(), bad) {
			t.Errorf("%q in:\n%s", bad, out.String())
		}
	}
	if !strings.Contains(out.String(), masked) || s.Reveal() != "hidden" || p.URL().User.String() != "user:hidden" {
		t.Error("the secret cannot be used")
	}
	var none Secret
	if none.IsSet() || none.String() != "" || none.Reveal() != "" {
		t.Error("the zero secret is set")
	}
}
