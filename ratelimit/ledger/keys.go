package ledger

import (
	_ "embed"
	"fmt"
	"strings"
	"time"
)

//go:embed post.lua
var postLua string

// Retention bounds what a book keeps. A zero field means its default.
type Retention struct {
	Rows    int           // rows, newest first; per organisation in Redis; default 10,000
	RowAge  time.Duration // of rows; default 90 days
	SumAge  time.Duration // of hourly sums; default 90 days; at least 32 days, so that a calendar month can be summed
	Names   int           // sums per hour; default 1,000; beyond it models and targets are summed together, at twice that everything
	Pending int           // rows that wait to be written by the embedded store; default 8,192
}

const (
	day      = 24 * time.Hour
	minSums  = 32 * day
	maxName  = 256 // bytes of a name that are kept
	sumOther = "(other)"
)

func (r Retention) withDefaults() Retention {
	orElse(&r.Rows, 10_000)
	orElse(&r.RowAge, 90*day)
	orElse(&r.SumAge, 90*day)
	orElse(&r.Names, 1_000)
	orElse(&r.Pending, 8_192)
	r.SumAge = max(r.SumAge, minSums)
	return r
}

func orElse[T int | time.Duration](v *T, def T) {
	if *v <= 0 {
		*v = def
	}
}

// Lua is the text of ledger_post and ledger_used with these bounds, to be put in front of
// a script. Its contract stands in post.lua.
func (r Retention) Lua() string {
	r = r.withDefaults()
	return fmt.Sprintf("local ledger_rows, ledger_names, ledger_rows_age, ledger_sums_age = '%d', %d, %d, %d\n%s",
		r.Rows, r.Names, max(1, int64(r.RowAge/time.Second)), int64(r.SumAge/time.Second), postLua)
}

// Slot is the beginning of all keys of an organisation; what stands in the braces is their
// hash slot. No name can end the braces or look like another.
func Slot(prefix, org string) string { return prefix + "{o:" + Escape(cut(org)) + "}" }

// Shelf is the beginning of an organisation's ledger keys: the p of ledger_post.
func Shelf(slot string) string { return slot + ":l" }

// Escape writes a name so that it can stand between the colons and braces of a key: bytes
// other than letters, digits and "-_.@" become "%" and two hexadecimal digits.
func Escape(name string) string {
	if strings.IndexFunc(name, special) < 0 {
		return name
	}
	const digits = "0123456789ABCDEF"
	var b strings.Builder
	for i := range len(name) {
		if c := name[i]; special(rune(c)) {
			b.WriteByte('%')
			b.WriteByte(digits[c>>4])
			b.WriteByte(digits[c&15])
		} else {
			b.WriteByte(c)
		}
	}
	return b.String()
}

func special(c rune) bool {
	switch {
	case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9':
		return false
	default:
		return c != '-' && c != '_' && c != '.' && c != '@'
	}
}
