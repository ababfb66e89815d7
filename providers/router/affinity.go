package router

import (
	"bytes"
	"math"

	"sluice/providers"
)

// Affinity is what BalanceHash keeps together, so that a server finds in its cache what
// it has read before. What a request does not tell, the next one stands for.
type Affinity uint8

const (
	// AffinitySession keeps conversations together.
	AffinitySession Affinity = iota
	// AffinityUser keeps users together.
	AffinityUser
	// AffinityPrompt keeps prompts together that begin alike.
	AffinityPrompt
)

// prefixBytes is how much of a prompt is compared: a system prompt's worth, and some
// hundred tokens.
const prefixBytes = 1024

// crowded is how much more than the mean a target may have to do before BalanceHash goes
// on to the next (consistent hashing with bounded loads).
const crowded = 1.25

// The seed is fixed: replicas must come to the same places.
func hashOf(text []byte) uint64 {
	h := uint64(14695981039346656037) // FNV-1a
	for _, b := range text {
		h = (h ^ uint64(b)) * 1099511628211
	}
	return mix(h)
}

// mix spreads the bits of a number over all of it (splitmix64).
func mix(h uint64) uint64 {
	h = (h ^ h>>30) * 0xbf58476d1ce4e5b9
	h = (h ^ h>>27) * 0x94d049bb133111eb
	return h ^ h>>31
}

// key is what a request is placed by.
func (a Affinity) key(req *providers.Request) uint64 {
	switch {
	case req == nil:
		return 0
	case a == AffinitySession && req.Hints.Session != "":
		return hashOf([]byte(req.Hints.Session))
	case a <= AffinityUser && req.Hints.User != "":
		return hashOf([]byte(req.Hints.User))
	default:
		return hashOf(prefix(req.Body))
	}
}

// prefix is where the prompt of a request begins, as it stands in the body.
func prefix(body []byte) []byte {
	for _, name := range [][]byte{[]byte(`"messages"`), []byte(`"prompt"`), []byte(`"input"`)} {
		if i := bytes.Index(body, name); i >= 0 {
			body = body[i+len(name):]
			break
		}
	}
	return body[:min(len(body), prefixBytes)]
}

// hashed takes the member that the key belongs to by weighted rendezvous hashing, or the
// next one while a member has too much to do. A target that comes or goes moves no key
// but its own.
func (p *Pool) hashed(of *set, q *query) int {
	key := p.Affinity.key(q.req)
	running, weights, n, last := 1.0, 0, 0, 0
	alike := true
	for i := of.after(-1); i >= 0; i = of.after(i) {
		running += float64(p.Targets[i].state().running.Load())
		w := p.Targets[i].share()
		alike = alike && (n == 0 || w == last)
		weights, last, n = weights+w, w, n+1
	}
	room := crowded * running / float64(weights)
	best, most := -1, math.Inf(-1)
	for i := of.after(-1); i >= 0; i = of.after(i) {
		t := p.Targets[i]
		if float64(t.state().running.Load()) >= math.Ceil(room*float64(t.share())) {
			continue
		}
		if s := t.score(key, alike); s > most {
			best, most = i, s
		}
	}
	if best < 0 { // the counts have moved meanwhile
		return p.leastRunning(of)
	}
	return best
}

// score orders the targets for a key; a target of twice the weight is first twice as
// often. Among targets of the same weight the hash itself orders them as the score does.
func (t *Target) score(key uint64, alike bool) float64 {
	u := (float64(mix(key^t.place())>>11) + 0.5) / (1 << 53)
	if alike {
		return u
	}
	return -float64(t.share()) / math.Log(u)
}

// place is the hash of the target's name.
func (t *Target) place() uint64 {
	if h := t.hashed.Load(); h != 0 {
		return h
	}
	h := hashOf([]byte(t.Name)) | 1
	t.hashed.Store(h)
	return h
}
