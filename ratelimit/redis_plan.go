package ratelimit

import (
	"encoding/binary"
	"math"
	"time"

	"sluice/ratelimit/ledger"
)

// redisPlan is where a call's buckets are in Redis.
type redisPlan struct {
	id      string // escaped
	org     string
	row     []byte // of the call's loss, packed; nil while it is not reserved
	buckets []Bucket
	parts   []redisPart // the tenant's first, then the shared one; those that have buckets
}

// redisPart is what of a plan is in one hash slot, and so in one script.
type redisPart struct {
	slot    string // beginning of its keys
	org     string // whose slot it is; "" for the shared one
	shared  bool
	buckets []int    // of plan.buckets; those of Streams last
	keys    []string // of these buckets
	rules   []byte   // of these buckets, with their keys and what the call takes, as lib.lua unpacks them
	needs   []int64  // that the call takes of these buckets
	numbers []byte   // of the buckets but those of Streams, as reserve.lua unpacks them
	seats   []byte   // of those of Streams
	places  []string // keys that hold places of Streams; the last of keys
	hard    bool
}

func (p *redisPart) key(id string) string { return p.slot + ":r:" + id } // of a reservation
func (p *redisPart) open() string         { return p.slot + ":open" }

// Kinds of buckets in lib.lua.
const (
	kindSteady = iota
	kindDay
	kindMonth
	kindPlaces
)

func kindOf(r *Rule) byte {
	switch {
	case r.Dim == Streams:
		return kindPlaces
	case r.Per == CalendarDay:
		return kindDay
	case r.Per == CalendarMonth:
		return kindMonth
	default:
		return kindSteady
	}
}

// newPlan finds the buckets of a call. No name can forge another's key or leave its slot:
// names are escaped, and what stands between them is not part of any escaped name.
func (r *Redis) newPlan(id string, who *Subject, want Cost) *redisPlan {
	return r.planOver(id, who.Org, r.rules.Match(nil, who), want)
}

// planOver is the plan of a call that takes from these buckets.
func (r *Redis) planOver(id, org string, buckets []Bucket, want Cost) *redisPlan {
	p := &redisPlan{id: ledger.Escape(id), org: org, buckets: buckets}
	if len(p.buckets) == 0 {
		return p
	}
	tenant := redisPart{slot: ledger.Slot(r.prefix, org), org: org}
	shared := redisPart{slot: r.shared, shared: true}
	for _, places := range []bool{false, true} {
		for i, b := range p.buckets {
			to := &tenant
			if b.Rule.Scope.Shared() {
				to = &shared
			}
			if places == (b.Rule.Dim == Streams) {
				to.add(i, b, redisNeed(b.Rule, want))
			}
		}
	}
	for _, part := range []redisPart{tenant, shared} {
		if len(part.keys) > 0 {
			p.parts = append(p.parts, part)
		}
	}
	return p
}

func (p *redisPart) add(i int, b Bucket, need int64) {
	kind := kindOf(b.Rule)
	key := p.slot + ":b:" + b.Rule.ID + ":" + ledger.Escape(b.Name)
	if kind == kindPlaces {
		key = p.slot + ":c:" + b.Rule.ID + ":" + ledger.Escape(b.Name)
	}
	if b.Model != "" {
		key += "/" + ledger.Escape(b.Model)
	}
	if kind == kindPlaces {
		p.places = append(p.places, key)
		p.seats = appendFloats(p.seats, b.Rule.Full(), need)
	} else {
		p.numbers = appendFloats(p.numbers, int64(kind), b.Rule.Amount, b.Rule.Full(), b.Rule.Per.micros(), need)
	}
	p.buckets = append(p.buckets, i)
	p.keys = append(p.keys, key)
	p.needs = append(p.needs, need)
	p.hard = p.hard || b.Rule.Hard
	hard := byte(0)
	if b.Rule.Hard {
		hard = 1
	}
	p.rules = append(p.rules, kind, byte(b.Rule.Dim), hard)
	for _, n := range [...]int64{b.Rule.Amount, b.Rule.Full(), b.Rule.Per.micros(), need} {
		p.rules = binary.LittleEndian.AppendUint64(p.rules, uint64(n))
	}
	p.rules = appendText(p.rules, key)
}

// reservation is what RESERVE stores, but for the time. lib.lua tells its form.
func (p *redisPart) reservation(org string, row []byte) []byte {
	value := make([]byte, 0, reservationHead+4+len(org)+len(row)+len(p.rules))
	value = append(value, "open0"...)
	value = value[:reservationHead]
	value = appendText(value, row)
	value = appendText(value, org)
	return append(value, p.rules...)
}

// ruleNumbers is the size of a packed rule in front of its key.
const ruleNumbers = 3 + 4*8

// firstRule is the first of packed rules.
func firstRule(rules []byte) []byte {
	return rules[:ruleNumbers+2+int(binary.LittleEndian.Uint16(rules[ruleNumbers:]))]
}

// keysOf are the keys of the buckets of packed rules.
func keysOf(rules []byte) (keys []string) {
	for len(rules) > 0 {
		one := firstRule(rules)
		keys, rules = append(keys, string(one[ruleNumbers+2:])), rules[len(one):]
	}
	return keys
}

// usedAt is where what was used so far stands in a reservation.
const usedAt = 5

// reservationHead is the part of a reservation that has a fixed size: open, asked, two costs
// and a word.
const reservationHead = 5 + 2*costBytes + wordBytes

const (
	costBytes = 6 * 8
	wordBytes = 16
)

// appendFloats appends integers as Lua has them, which unpack quicker than others.
func appendFloats(dst []byte, list ...int64) []byte {
	for _, n := range list {
		dst = binary.LittleEndian.AppendUint64(dst, math.Float64bits(float64(n)))
	}
	return dst
}

// appendText appends a length of two bytes and the text, which is cut at 65,535 bytes.
func appendText[T string | []byte](dst []byte, text T) []byte {
	text = text[:min(len(text), 1<<16-1)]
	dst = binary.LittleEndian.AppendUint16(dst, uint16(len(text)))
	return append(dst, text...)
}

// rulesNow are the rules of the part's buckets as they are in force now, with what the call
// took; nil when they are as they were. Rules that were removed stay as they were.
func (p *redisPlan) rulesNow(part *redisPart, set *ruleSet) []byte {
	now := redisPart{slot: part.slot}
	changed := false
	for n, i := range part.buckets {
		b, other := p.buckets[i].now(set)
		changed = changed || other
		now.add(i, b, part.needs[n])
	}
	if !changed {
		return nil
	}
	return now.rules
}

// now is the bucket with its rule as it is in force now. One that was removed stays as it was.
func (b Bucket) now(set *ruleSet) (now Bucket, changed bool) {
	if rule := set.byID[b.Rule.ID]; rule != nil && kindOf(rule) == kindOf(b.Rule) && rule.Dim == b.Rule.Dim &&
		(rule.Amount != b.Rule.Amount || rule.Full() != b.Rule.Full() || rule.Per != b.Rule.Per) {
		b.Rule, changed = rule, true
	}
	return b, changed
}

// redisNeed is what the call takes from the rule's bucket: at most a full one, so that a small
// limit serves one call, into debt.
func redisNeed(r *Rule, want Cost) int64 {
	return min(max(want.Of(r.Dim), 0), r.Full())
}

// packCost is a cost times sign as lib.lua unpacks it.
func packCost(c Cost, sign int64) []byte {
	out := make([]byte, 0, costBytes)
	for _, n := range [...]int64{c.Requests, c.Input, c.Output, c.Frames, c.FrameBytes, c.Money} {
		out = binary.LittleEndian.AppendUint64(out, uint64(sign*min(max(n, 0), MaxBudget)))
	}
	return out
}

// unpackCost is the cost that packCost has packed.
func unpackCost(b []byte) (c Cost) {
	for i, n := range []*int64{&c.Requests, &c.Input, &c.Output, &c.Frames, &c.FrameBytes, &c.Money} {
		*n = int64(binary.LittleEndian.Uint64(b[8*i:]))
	}
	return c
}

// redisState is a bucket as a script told it.
type redisState struct {
	fill
	now  int64 // of Redis, microseconds
	told bool
}

// read takes the part's states from what RESERVE says of them: what is left of places, the other
// buckets, both less what the call needs, which is added unless it was taken.
func (p *redisPart) read(states []redisState, reply *reserveReply) bool {
	if len(reply.buckets)+len(reply.places) != len(p.buckets) {
		return false
	}
	for n, i := range p.buckets {
		s := redisState{fill{at: reply.now}, reply.now, true}
		if n < len(reply.buckets) {
			text, ok := reply.buckets[n].(string)
			if !ok || len(text) < bucketBytes {
				return false
			}
			s.level, s.fraction, s.at = floatAt(text, 0), floatAt(text, 1), floatAt(text, 2)
		} else {
			s.level = reply.places[n-len(reply.buckets)]
		}
		if !reply.took {
			s.level += p.needs[n]
		}
		states[i] = s
	}
	return true
}

// wait is until the bucket has need, if nobody takes from it.
func (s *redisState) wait(r *Rule, need int64) time.Duration {
	switch {
	case s.level >= need:
		return 0
	case r.Dim == Streams:
		return placesRetry
	default:
		return s.fill.wait(r, need, s.now)
	}
}

func (s *redisState) of(b Bucket) Level {
	return Level{Rule: b.Rule, Name: b.Label(), Left: s.level, Reset: s.wait(b.Rule, b.Rule.Full())}
}

// denied says which buckets have too little, or nil.
func (p *redisPlan) denied(states []redisState, want Cost) *Denied {
	d := new(Denied)
	for i, b := range p.buckets {
		s, need := &states[i], redisNeed(b.Rule, want)
		if !s.told || need == 0 || s.level >= need {
			continue
		}
		d.Over = append(d.Over, Shortage{Level: s.of(b), Need: need})
		d.RetryAfter = max(d.RetryAfter, s.wait(b.Rule, need))
	}
	if len(d.Over) == 0 {
		return nil
	}
	return d
}

// tooLarge are the buckets that are smaller than the prompt alone, or nil.
func (p *redisPlan) tooLarge(states []redisState, want Cost) *Denied {
	d := &Denied{TooLarge: true}
	for i, b := range p.buckets {
		if prompt := want.prompt(b.Rule.Dim); prompt > b.Rule.Full() {
			level := Level{Rule: b.Rule, Name: b.Label(), Left: b.Rule.Full()}
			if states != nil && states[i].told {
				level = states[i].of(b)
			}
			d.Over = append(d.Over, Shortage{Level: level, Need: prompt})
		}
	}
	if len(d.Over) == 0 {
		return nil
	}
	return d
}

// grant are all buckets, in the order of the rules.
func (p *redisPlan) grant(states []redisState) Grant {
	g := Grant{Levels: make([]Level, 0, len(p.buckets))}
	for i, b := range p.buckets {
		g.Levels = append(g.Levels, states[i].of(b))
		g.Hard = g.Hard || b.Rule.Hard
	}
	return g
}
