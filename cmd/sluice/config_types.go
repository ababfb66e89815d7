package main

import (
	"encoding"
	"errors"
	"log/slog"
	"math"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// Duration is a span of time written with its unit: "30s", "10m", "1h30m". It
// is never negative when it comes out of the loader.
type Duration time.Duration

// Std gives the value as the standard library's type.
func (d Duration) Std() time.Duration { return time.Duration(d) }

// String writes the shortest form that reads back: "2m" and not "2m0s".
func (d Duration) String() string {
	s := time.Duration(d).String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

// MarshalText is the inverse of UnmarshalText.
func (d Duration) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// UnmarshalText reads what time.ParseDuration reads, without a sign.
func (d *Duration) UnmarshalText(text []byte) error {
	v, err := time.ParseDuration(string(text))
	if err != nil {
		return errors.New(`want a duration with its unit, such as "500ms", "30s" or "1h30m"`)
	}
	if v < 0 {
		return errors.New("a duration cannot be negative")
	}
	*d = Duration(v)
	return nil
}

// Size is a number of bytes: "64KiB", "10MiB", or a plain number.
type Size int64

// sizeUnits is ordered from large to small, the longer suffix before the one
// it ends with.
var sizeUnits = []struct {
	suffix string
	bytes  int64
}{
	{"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10},
	{"GB", 1e9}, {"MB", 1e6}, {"KB", 1e3}, {"B", 1},
}

// String uses the largest binary unit that divides the value.
func (s Size) String() string {
	for _, u := range sizeUnits[:3] {
		if s != 0 && int64(s)%u.bytes == 0 {
			return strconv.FormatInt(int64(s)/u.bytes, 10) + u.suffix
		}
	}
	return strconv.FormatInt(int64(s), 10) + "B"
}

// MarshalText is the inverse of UnmarshalText.
func (s Size) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText reads a whole number and an optional unit, in any case. KiB,
// MiB, GiB count in 1024s; KB, MB, GB in 1000s.
func (s *Size) UnmarshalText(text []byte) error {
	number, unit := strings.TrimSpace(string(text)), int64(1)
	for _, u := range sizeUnits {
		if n := len(number) - len(u.suffix); n > 0 && strings.EqualFold(number[n:], u.suffix) {
			number, unit = strings.TrimSpace(number[:n]), u.bytes
			break
		}
	}
	n, err := strconv.ParseInt(number, 10, 64)
	switch {
	case errors.Is(err, strconv.ErrRange) || err == nil && n > math.MaxInt64/unit:
		return errors.New("the size is too large")
	case err != nil:
		return errors.New(`want a size in bytes, such as 4096, "64KiB" or "10MiB"`)
	case n < 0:
		return errors.New("a size cannot be negative")
	}
	*s = Size(n * unit)
	return nil
}

// Secret is a string that shows itself to nobody but who asks with Reveal:
// formatting, encoding and logging give "***". The zero value is "not set".
type Secret struct{ p *string } // behind a pointer, so that printing a struct around it shows an address at worst

const masked = "***"

// newSecret wraps a value; an empty one counts as set.
func newSecret(v string) Secret { return Secret{&v} }

// Reveal gives the secret itself, "" when none is set.
func (s Secret) Reveal() string {
	if s.p == nil {
		return ""
	}
	return *s.p
}

// IsSet tells whether a non-empty secret was given.
func (s Secret) IsSet() bool { return s.Reveal() != "" }

// String gives "***", or "" when nothing is set.
func (s Secret) String() string {
	if !s.IsSet() {
		return ""
	}
	return masked
}

// GoString answers %#v.
func (s Secret) GoString() string { return s.String() }

// MarshalText serves encoders of text formats, XML and map keys.
func (s Secret) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// MarshalJSON serves encoding/json.
func (s Secret) MarshalJSON() ([]byte, error) { return []byte(strconv.Quote(s.String())), nil }

// LogValue serves log/slog.
func (s Secret) LogValue() slog.Value { return slog.StringValue(s.String()) }

// UnmarshalText takes the text as it is.
func (s *Secret) UnmarshalText(text []byte) error {
	*s = newSecret(string(text))
	return nil
}

// CIDR is a network ("10.0.0.0/8") or a single address.
type CIDR struct{ netip.Prefix }

// MarshalText writes the network with its length.
func (c CIDR) MarshalText() ([]byte, error) { return []byte(c.String()), nil }

// UnmarshalText reads a network, or an address as the network of itself.
func (c *CIDR) UnmarshalText(text []byte) error {
	if a, err := netip.ParseAddr(string(text)); err == nil && a.Zone() == "" {
		c.Prefix = netip.PrefixFrom(a, a.BitLen())
		return nil
	}
	p, err := netip.ParsePrefix(string(text))
	if err != nil {
		return errors.New(`want a network such as "10.0.0.0/8", or an IP address`)
	}
	c.Prefix = p.Masked()
	return nil
}

// ProxyURL is the proxy in front of an upstream; its zero value is none. It
// may carry a user name and password, so its text form hides the password.
type ProxyURL struct{ u *url.URL }

// URL gives the proxy with its credentials, nil for none.
func (p ProxyURL) URL() *url.URL { return p.u }

// String hides the password.
func (p ProxyURL) String() string {
	if p.u == nil {
		return ""
	}
	return strings.Replace(p.u.Redacted(), ":xxxxx@", ":"+masked+"@", 1)
}

// MarshalText hides the password.
func (p ProxyURL) MarshalText() ([]byte, error) { return []byte(p.String()), nil }

// UnmarshalText reads an http, https or socks5 URL, or "" for none.
func (p *ProxyURL) UnmarshalText(text []byte) error {
	if len(text) == 0 {
		p.u = nil
		return nil
	}
	u, err := url.Parse(string(text))
	if err != nil || u.Host == "" || (u.Scheme != "http" && u.Scheme != "https" && u.Scheme != "socks5") {
		return errors.New(`want the URL of a proxy, such as "http://proxy.example:3128" (http, https or socks5)`)
	}
	p.u = u
	return nil
}

var (
	_ encoding.TextUnmarshaler = (*Duration)(nil)
	_ encoding.TextUnmarshaler = (*Size)(nil)
	_ encoding.TextUnmarshaler = (*Secret)(nil)
	_ encoding.TextUnmarshaler = (*CIDR)(nil)
	_ encoding.TextUnmarshaler = (*ProxyURL)(nil)
)
