package main

import (
	"errors"
	"strings"
)

// Dollars is an amount of US dollars in nano-dollars (1e-9), so that what is written
// with up to nine decimals is kept exactly.
type Dollars int64

// nano is how many nano-dollars a dollar has.
const nano = 1_000_000_000

// String writes the amount with as many decimals as it has.
func (d Dollars) String() string {
	digits := "0000000000" + uitoa(uint64(d))
	at := len(digits) - 9
	whole, part := strings.TrimLeft(digits[:at], "0"), strings.TrimRight(digits[at:], "0")
	if whole == "" {
		whole = "0"
	}
	if part == "" {
		return whole
	}
	return whole + "." + part
}

func uitoa(n uint64) string {
	var b [20]byte
	i := len(b)
	for ; n > 0; n /= 10 {
		i--
		b[i] = byte('0' + n%10)
	}
	return string(b[i:])
}

// MarshalText is the inverse of UnmarshalText.
func (d Dollars) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// UnmarshalText reads a plain decimal: digits, and a point with up to nine more.
func (d *Dollars) UnmarshalText(text []byte) error {
	whole, part, point := strings.Cut(strings.ReplaceAll(string(text), "_", ""), ".")
	whole = strings.TrimPrefix(whole, "+")
	switch {
	case strings.HasPrefix(whole, "-"):
		return errors.New("an amount of money cannot be negative")
	case !digitsOnly(whole) || point && !digitsOnly(part):
		return errors.New("want an amount in US dollars, such as 0.15")
	}
	if part = strings.TrimRight(part, "0"); len(part) > 9 {
		return errors.New("an amount of money has at most nine decimals")
	}
	if whole = strings.TrimLeft(whole, "0"); len(whole) > 9 {
		return errors.New("the amount is too large")
	}
	var n int64
	for _, ch := range whole + part + "000000000"[len(part):] {
		n = n*10 + int64(ch-'0')
	}
	*d = Dollars(n)
	return nil
}

func digitsOnly(s string) bool { return s != "" && strings.Trim(s, "0123456789") == "" }
