package store

import (
	"crypto/sha256"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"sluice/handlers/auth"
	"sluice/ratelimit"
)

// Bounds of a key, so that it takes at most about 64 KiB.
const (
	maxName     = 128 // bytes of a name, owner or group
	maxGlobs    = 256 // in each list of patterns
	maxGlob     = 256 // bytes of a pattern
	maxLimits   = 16
	maxGroups   = 64
	maxMetadata = 32 // entries
	maxMetaName = 64 // bytes
	maxMeta     = 512
	maxRecord   = 64 << 10
	maxSecrets  = 2
)

// MaxOverlap is for how long a secret stays valid at most after another took its place.
const MaxOverlap = 90 * 24 * time.Hour

// Key is what is known of an issued key; the secret is not. One that Lookup, Get or List
// returned is read only and may be used concurrently, and stays as it was then.
type Key struct {
	ID      auth.KeyID
	Version uint64 // 1 when created, one more with every edit

	Name       string
	Expires    time.Time // zero: never
	Disabled   bool
	Models     []string // patterns as limits have them; none means all
	Routes     []string // patterns of the operations' names ("chat", "embeddings"); none means all
	Transports []string // http, sse, ws; none means all
	Limits     []Limit
	Groups     []string
	User       string
	Team       string
	Org        string
	Metadata   map[string]string

	Created, Updated time.Time
	Deleted          time.Time // zero: it is not; else what is left are ID, Name, owner and times
	LastUsed         time.Time // to the minute, and some minutes late; zero: never. Filled by Get and List

	secrets []secret // the newest last
	rules   []*ratelimit.Rule
	caller  auth.Principal
	rest    map[string]json.RawMessage // fields of newer versions
	newer   []byte                     // the whole of a key that this version must not use
}

// secret is one that is valid, or was.
type secret struct {
	serial uint32 // grows with every rotation
	sum    [sha256.Size]byte
	until  time.Time // zero: as long as the key
}

// Problem is what is wrong with one field of a key.
type Problem struct{ Field, Text string }

// Problems are all that is wrong with a key; at least one.
type Problems []Problem

func (p Problems) Error() string {
	lines := make([]string, len(p))
	for i, one := range p {
		lines[i] = one.Field + ": " + one.Text
	}
	return strings.Join(lines, "\n")
}

// Check returns Problems with everything that is wrong with the fields that a caller may
// set, or nil.
func (k *Key) Check() error {
	var found Problems
	bad := func(field, format string, args ...any) {
		found = append(found, Problem{field, fmt.Sprintf(format, args...)})
	}
	if k.Name == "" {
		bad("name", "a name is required")
	}
	checkText(bad, "name", k.Name, maxName)
	checkText(bad, "user", k.User, maxName)
	checkText(bad, "team", k.Team, maxName)
	checkText(bad, "org", k.Org, maxName)
	checkGlobs(bad, "models", k.Models)
	checkGlobs(bad, "routes", k.Routes)
	for i, t := range k.Transports {
		if t != "http" && t != "sse" && t != "ws" || slices.Contains(k.Transports[:i], t) {
			bad(fmt.Sprintf("transports[%d]", i), "want http, sse and ws, each once")
		}
	}
	if len(k.Groups) > maxGroups {
		bad("groups", "there are at most %d", maxGroups)
	}
	for i, g := range k.Groups {
		if field := fmt.Sprintf("groups[%d]", i); g == "" {
			bad(field, "a group needs a name")
		} else {
			checkText(bad, field, g, maxName)
		}
	}
	k.checkMetadata(bad)
	k.checkLimits(bad)
	if len(found) == 0 {
		return nil
	}
	return found
}

type report = func(field, format string, args ...any)

func checkText(bad report, field, s string, most int) {
	switch {
	case len(s) > most:
		bad(field, "it has %d bytes; at most %d are kept", len(s), most)
	case !utf8.ValidString(s) || strings.ContainsFunc(s, unicode.IsControl):
		bad(field, "want text in UTF-8 without control characters")
	}
}

func checkGlobs(bad report, field string, globs []string) {
	if len(globs) > maxGlobs {
		bad(field, "there are at most %d", maxGlobs)
		return
	}
	for i, g := range globs {
		at := fmt.Sprintf("%s[%d]", field, i)
		checkText(bad, at, g, maxGlob)
		rule := []ratelimit.Rule{{ID: "glob", Dim: ratelimit.Requests, Per: ratelimit.Day, Amount: 1, Models: []string{g}}}
		var wrong ratelimit.RuleErrors
		if errors.As(ratelimit.CheckRules(rule), &wrong) {
			bad(at, "%s", wrong[0].Problem)
		}
	}
}

func (k *Key) checkMetadata(bad report) {
	if len(k.Metadata) > maxMetadata {
		bad("metadata", "there are at most %d entries", maxMetadata)
		return
	}
	for _, name := range slices.Sorted(maps.Keys(k.Metadata)) {
		if name == "" {
			bad("metadata", "an entry needs a name")
			continue
		}
		checkText(bad, "metadata", name, maxMetaName)
		checkText(bad, "metadata."+name, k.Metadata[name], maxMeta)
	}
}

func (k *Key) checkLimits(bad report) {
	if len(k.Limits) > maxLimits {
		bad("limits", "there are at most %d", maxLimits)
		return
	}
	for i := range k.Limits {
		if len(k.Limits[i].Models) > maxGlobs {
			bad(fmt.Sprintf("limits[%d].models", i), "there are at most %d", maxGlobs)
			continue
		}
		k.Limits[i].check(i, bad)
	}
}

// prepare makes what Rules and Principal return. The error is that of a limit that does not hold.
func (k *Key) prepare() error {
	var all []ratelimit.Rule
	for i := range k.Limits {
		for name := range k.Limits[i].Rates {
			if _, ok := flows[name]; !ok {
				return fmt.Errorf("there is no rate %q", name)
			}
		}
		all = append(all, k.Limits[i].rules(i)...)
	}
	if err := ratelimit.CheckRules(all); err != nil {
		return err
	}
	k.rules = nil
	for i := range all {
		k.rules = append(k.rules, &all[i])
	}
	k.caller = auth.Principal{
		Key: k.ID.String(), Org: k.Org, Team: k.Team, User: k.User, Rules: k.rules, Groups: k.Groups, Name: k.Name, Metadata: k.Metadata, Expires: k.Expires,
	}
	if len(k.Models)+len(k.Routes)+len(k.Transports) > 0 {
		k.caller.May = &auth.Permissions{Models: k.Models, Routes: k.Routes, Transports: k.Transports}
	}
	return nil
}

// Rules are the limits that the key carries, for ratelimit.Subject. They are read only.
func (k *Key) Rules() []*ratelimit.Rule { return k.rules }

// Principal is who calls with the key: its name in buckets and books is the id. The serial
// is that of no secret.
func (k *Key) Principal() auth.Principal { return k.caller }

// State is active, disabled, expired, deleted, or newer: written by a newer version.
func (k *Key) State(now time.Time) string {
	switch err := k.state(now); {
	case errors.Is(err, errNewer):
		return "newer"
	case !k.Deleted.IsZero():
		return "deleted"
	case errors.Is(err, ErrDisabled):
		return "disabled"
	case errors.Is(err, ErrExpired):
		return "expired"
	default:
		return "active"
	}
}

// Secrets is how many secrets of the key are valid at a moment: 2 while a rotation overlaps.
func (k *Key) Secrets(now time.Time) (n int) {
	for i := range k.secrets {
		if k.secrets[i].valid(now) {
			n++
		}
	}
	return n
}

func (s *secret) valid(now time.Time) bool { return s.until.IsZero() || now.Before(s.until) }

// match finds the valid secret with the sum. Its work is the same whatever it finds.
func (k *Key) match(sum *[sha256.Size]byte, now time.Time) (serial uint32, ok bool) {
	found := 0
	for i := range maxSecrets {
		s := &noSecret
		if i < len(k.secrets) {
			s = &k.secrets[i]
		}
		same := subtle.ConstantTimeCompare(s.sum[:], sum[:])
		if s == &noSecret || !s.valid(now) {
			same = 0
		}
		serial |= s.serial & -uint32(same)
		found |= same
	}
	return serial, found == 1
}

var noSecret secret

// state says why the key is not in force, or nil.
func (k *Key) state(now time.Time) error {
	switch {
	case k.newer != nil:
		return errNewer
	case !k.Deleted.IsZero():
		return ErrUnknown
	case k.Disabled:
		return ErrDisabled
	case !k.Expires.IsZero() && !now.Before(k.Expires):
		return ErrExpired
	}
	return nil
}

// oldest is the least serial that is in force at a moment; dead is set when none is.
func (k *Key) oldest(now time.Time) (serial uint32, dead bool) {
	if k.state(now) != nil {
		return 0, true
	}
	for i := range k.secrets {
		if k.secrets[i].valid(now) {
			return k.secrets[i].serial, false
		}
	}
	return 0, true
}

// next is the next moment at which time alone ends something; zero: there is none.
func (k *Key) next(now time.Time) (at time.Time) {
	consider := func(t time.Time) {
		if t.After(now) && (at.IsZero() || t.Before(at)) {
			at = t
		}
	}
	consider(k.Expires)
	for i := range k.secrets {
		consider(k.secrets[i].until)
	}
	return at
}

// clone may be changed without changing k. Times are those that are stored.
func (k *Key) clone() *Key {
	c := *k
	c.Models, c.Routes, c.Transports = slices.Clone(k.Models), slices.Clone(k.Routes), slices.Clone(k.Transports)
	c.Groups, c.Metadata, c.secrets = slices.Clone(k.Groups), maps.Clone(k.Metadata), slices.Clone(k.secrets)
	c.Limits = slices.Clone(k.Limits)
	for i := range c.Limits {
		l := &c.Limits[i]
		l.Models, l.Rates, l.rest = slices.Clone(l.Models), maps.Clone(l.Rates), maps.Clone(l.rest)
	}
	c.rest = maps.Clone(k.rest)
	return &c
}
