package wall

import (
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Plan is a parsed specification: the keys for each call in turn, the last of them for all further calls.
type Plan struct {
	steps []step
}

type step struct {
	count    int
	settings []setting
}

type setting struct {
	key   *Key
	value string
}

// MaxSpec is the largest specification in bytes that is read.
const MaxSpec = 4096

// Parse reads the textual form: KEY=VAL or KEY, separated by commas or white space. "|" separates the scripts of
// successive calls, and "N*" before one repeats it: "2*status=503 | tokens=5". Values may be percent-encoded.
// The error names the offending key.
func Parse(spec string) (*Plan, error) {
	if len(spec) > MaxSpec {
		return nil, fmt.Errorf("script of %d bytes is larger than %d", len(spec), MaxSpec)
	}
	p := &Plan{}
	for part := range strings.SplitSeq(spec, "|") {
		st, err := parseStep(part)
		if err != nil {
			return nil, err
		}
		p.steps = append(p.steps, st)
	}
	return p, nil
}

func parseStep(part string) (step, error) {
	st := step{count: 1}
	part = strings.TrimSpace(part)
	if count, rest, ok := strings.Cut(part, "*"); ok && !strings.Contains(count, "=") {
		n, err := strconv.Atoi(count)
		if err != nil || n < 1 {
			return st, fmt.Errorf("%q before * is not a number of calls", count)
		}
		st.count, part = n, rest
	}
	words := strings.FieldsFunc(part, func(r rune) bool { return r == ',' || r == ' ' || r == '\t' || r == '\n' || r == '\r' })
	for _, word := range words {
		name, value, _ := strings.Cut(word, "=")
		i := slices.IndexFunc(keys, func(k Key) bool { return k.Name == name })
		if i < 0 {
			return st, fmt.Errorf("unknown key %q", name)
		}
		value, err := url.PathUnescape(value)
		if err == nil {
			err = keys[i].set(&Script{}, value)
		}
		if err != nil {
			return st, fmt.Errorf("key %q: value %q: %w", name, value, err)
		}
		st.settings = append(st.settings, setting{&keys[i], value})
	}
	return st, nil
}

// Script returns the script of call number attempt, counted from 0.
func (p *Plan) Script(attempt int) Script { return p.Apply(Script{}, attempt) }

// Apply returns base changed by the keys of call number attempt.
func (p *Plan) Apply(base Script, attempt int) Script {
	st := &p.steps[len(p.steps)-1]
	for i := range p.steps {
		if attempt < p.steps[i].count {
			st = &p.steps[i]
			break
		}
		attempt -= p.steps[i].count
	}
	for _, set := range st.settings {
		// Parse has proved that the value is good.
		_ = set.key.set(&base, set.value)
	}
	return base
}

// value returns the value of a key that is not part of the script itself ("key", "script"); "" when absent.
func (p *Plan) value(name string) string {
	for _, st := range p.steps {
		for _, set := range st.settings {
			if set.key.Name == name {
				return set.value
			}
		}
	}
	return ""
}

func flag(name, help string, at func(*Script) *bool) Key {
	return Key{name, "", help, func(s *Script, v string) error {
		if v == "" {
			*at(s) = true
			return nil
		}
		b, err := strconv.ParseBool(v)
		*at(s) = b
		return err
	}}
}

// num describes a key with a number from 0; with none a zero is kept as -1, because 0 in the field is the default.
func num(name, form, help string, limit int, at func(*Script) *int, none bool) Key {
	return Key{name, form, help, func(s *Script, v string) error {
		err := setInt(at(s), v, 0, limit)
		if none && *at(s) == 0 {
			*at(s) = -1
		}
		return err
	}}
}

func text(name, form, help string, at func(*Script) *string) Key {
	return Key{name, form, help, func(s *Script, v string) error {
		if strings.ContainsAny(v, "\r\n") {
			return fmt.Errorf("has a line break")
		}
		*at(s) = v
		return nil
	}}
}

func oneOf(name string, values []string, help string, at func(*Script) *string) Key {
	return Key{name, strings.Join(values, "|"), help, func(s *Script, v string) error {
		if !slices.Contains(values, v) {
			return fmt.Errorf("is none of %s", strings.Join(values, ", "))
		}
		*at(s) = v
		return nil
	}}
}

func dur(name, help string, at func(*Script) *time.Duration) Key {
	return Key{name, "DUR", help, func(s *Script, v string) error { return setDuration(at(s), v) }}
}

func position(name, help string, at func(*Script) *At) Key {
	return Key{name, "AT", help, func(s *Script, v string) error { return setAt(at(s), v) }}
}

func constant(set func(*Script)) func(*Script, string) error {
	return func(s *Script, v string) error {
		if v != "" {
			return fmt.Errorf("takes no value")
		}
		set(s)
		return nil
	}
}

func setInt(dst *int, v string, low, high int) error {
	n, err := strconv.Atoi(v)
	if err != nil || n < low || n > high {
		return fmt.Errorf("is no number from %d to %d", low, high)
	}
	*dst = n
	return nil
}

func setDuration(dst *time.Duration, v string) error {
	d, err := time.ParseDuration(v)
	if err != nil || d < 0 || d > maxDuration {
		return fmt.Errorf("is no duration up to %s", maxDuration)
	}
	*dst = d
	return nil
}

// setAt reads a position: a number of deltas, pre, headers or end.
func setAt(dst *At, v string) error {
	switch v {
	case "pre":
		*dst = BeforeHeaders
	case "headers":
		*dst = AfterHeaders
	case "end":
		*dst = AfterFinish
	default:
		return setCount(dst, v)
	}
	return nil
}

func setCount(dst *At, v string) error {
	var k int
	if err := setInt(&k, v, 0, maxTokens); err != nil {
		return fmt.Errorf("is no position: %w", err)
	}
	*dst = After(k)
	return nil
}

func setSize(dst *int, v string) error {
	for suffix, unit := range map[string]int{"KiB": 1 << 10, "MiB": 1 << 20, "KB": 1000, "MB": 1000 * 1000} {
		if n, ok := strings.CutSuffix(v, suffix); ok {
			if err := setInt(dst, n, 1, maxSize/unit); err != nil {
				return err
			}
			*dst *= unit
			return nil
		}
	}
	return setInt(dst, v, 1, maxSize)
}

func setOffsets(dst *[]int, v string) error {
	var offsets []int
	for part := range strings.SplitSeq(v, "+") {
		var n int
		if err := setInt(&n, part, 1, maxSize); err != nil {
			return err
		}
		offsets = append(offsets, n)
	}
	slices.Sort(offsets)
	*dst = offsets
	return nil
}

func setMalformed(s *Script, v string) error {
	at, run, ok := strings.Cut(v, ":")
	if ok {
		if err := setInt(&s.MalformedRun, run, 1, 10_000); err != nil {
			return err
		}
	}
	return setCount(&s.Malformed, at)
}

func setFail(s *Script, v string) error {
	count, with, ok := strings.Cut(v, ":")
	if !ok {
		with = "500"
	}
	s.FailWith = with
	if err := setInt(&s.Fail, count, 0, maxTokens); err != nil {
		return err
	}
	// One failing attempt tells whether FailWith is good.
	_, err := Script{Fail: 1, FailWith: with}.attempt(0)
	return err
}

func parseStatus(v string) (int, error) {
	var n int
	err := setInt(&n, v, 200, 599)
	return n, err
}
