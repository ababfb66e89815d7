package ratelimit

import (
	"encoding/binary"
	"sync"
	"time"
)

// redisTail remembers what Redis has acknowledged lately. A Redis that fails over to a replica,
// or begins again from what it had on disk, may have lost the last of it and answers as if
// it had never been: then it is told again. The scripts see to it that what has survived
// counts once.
//
// What is remembered lies in pages without pointers, and is dropped by the page: when it is
// older than needed, and the oldest when there is no room. It may be used concurrently.
type redisTail struct {
	keep time.Duration
	most int // bytes

	mu    sync.Mutex
	pages []tailPage // oldest first
	bytes int
}

// tailPage holds records of a short time.
type tailPage struct {
	first, last time.Time
	text        []byte // only appended to
}

// A page is ended when it has these.
const (
	tailPageBytes = 256 << 10
	tailPageTime  = 2 * time.Second
)

// tailRecord is a run of SETTLE that counted, or one of CHARGE.
type tailRecord struct {
	charge, shared bool
	unknown        bool   // Redis did not know the call's reservation when it was settled
	org, id        string // escaped
	used           []byte // packed
	row            []byte
	rules          []byte // of the buckets with what was taken of each; empty for a call that was not granted
}

// settled remembers a settlement; unknown: of a call whose reservation was not there.
func (t *redisTail) settled(at time.Time, run *settleRun, unknown bool) {
	t.add(at, &tailRecord{
		unknown: unknown, shared: run.part.shared, org: run.part.org, id: run.id, used: packCost(run.used, 1), row: run.row, rules: run.owed,
	})
}

// charged remembers a charge.
func (t *redisTail) charged(at time.Time, part *redisPart, id string) {
	for _, n := range part.needs {
		if n != 0 {
			t.add(at, &tailRecord{charge: true, shared: part.shared, org: part.org, id: id, rules: part.rules})
			return
		}
	}
}

func (t *redisTail) add(at time.Time, r *tailRecord) {
	t.mu.Lock()
	defer t.mu.Unlock()
	n := len(t.pages)
	if n == 0 || len(t.pages[n-1].text) >= tailPageBytes || at.Sub(t.pages[n-1].first) > tailPageTime {
		t.pages = append(t.pages, tailPage{first: at})
		n++
	}
	p := &t.pages[n-1]
	before := len(p.text)
	p.text, p.last = r.append(p.text), at
	t.bytes += len(p.text) - before
	for t.bytes > t.most && len(t.pages) > 1 {
		t.drop()
	}
}

func (t *redisTail) drop() {
	t.bytes -= len(t.pages[0].text)
	t.pages[0] = tailPage{}
	t.pages = t.pages[1:]
}

// safe says that Redis had everything at this time.
func (t *redisTail) safe(at time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for len(t.pages) > 0 && at.Sub(t.pages[0].last) > t.keep {
		t.drop()
	}
	if len(t.pages) == 0 {
		t.pages = nil
	}
}

// all are the records in their order. They are valid for as long as somebody holds them.
func (t *redisTail) all(yield func(*tailRecord) bool) {
	t.mu.Lock()
	pages := append([]tailPage(nil), t.pages...)
	t.mu.Unlock()
	for _, p := range pages {
		for text := p.text; len(text) > 0; {
			var r tailRecord
			text = r.read(text)
			if !yield(&r) {
				return
			}
		}
	}
}

func (r *tailRecord) append(dst []byte) []byte {
	flags := byte(0)
	if r.charge {
		flags |= 1
	}
	if r.shared {
		flags |= 2
	}
	if r.unknown {
		flags |= 4
	}
	dst = append(dst, flags)
	dst = appendLong(dst, r.org)
	dst = appendLong(dst, r.id)
	dst = appendLong(dst, r.used)
	dst = appendLong(dst, r.row)
	return appendLong(dst, r.rules)
}

// read takes the record from the beginning of a page, which nobody else has written.
func (r *tailRecord) read(text []byte) (rest []byte) {
	r.charge, r.shared, r.unknown = text[0]&1 != 0, text[0]&2 != 0, text[0]&4 != 0
	text = text[1:]
	var org, id []byte
	for _, to := range []*[]byte{&org, &id, &r.used, &r.row, &r.rules} {
		size, n := binary.Uvarint(text)
		*to, text = text[n:n+int(size)], text[n+int(size):]
	}
	r.org, r.id = string(org), string(id)
	return text
}

// appendLong appends a length and the text.
func appendLong[T string | []byte](dst []byte, text T) []byte {
	return append(binary.AppendUvarint(dst, uint64(len(text))), text...)
}
