package handlers

import (
	"encoding/binary"
	"sync"
	"time"
	"unicode/utf8"

	"sluice/providers"
	"sluice/streaming"
)

// Recent remembers the answers that have ended last, as text without pointers in a few
// blocks, which the collector need not read. It may be used concurrently; who reads
// holds nobody up for longer than the copy of one block takes.
type Recent struct {
	most int // rows

	mu     sync.Mutex
	blocks []*recentBlock // oldest first
	rows   int
	next   uint64 // number of the row to come, from 1
	spare  *recentBlock
}

// recentBlock holds the rows from number first on.
type recentBlock struct {
	first uint64
	text  []byte
	at    []uint32 // where each row begins
}

const (
	recentBlockSize = 64 << 10
	recentRowSize   = 3 << 10 // that a row takes at most
	recentName      = 128     // bytes of a name that are kept
	recentMessage   = 256     // and of an error
	recentTries     = 1 << 10 // bytes after which no more tries are kept of a row
)

// NewRecent remembers at least so many rows, and at most 1 KiB for each of them on average:
// of longer ones fewer are kept. It takes memory as rows come.
func NewRecent(rows int) *Recent { return &Recent{most: rows, next: 1} }

// Finished is an answer that has ended, or a request that came to none: then Op is "" and
// Model the route.
type Finished struct {
	Number                                               uint64 // counts up from 1
	ID, Op, Transport, Model, Target, Remote             string
	Key, KeyName, Org, Team, User                        string
	Stream                                               bool
	Start                                                time.Time
	Took, TTFT, LastToken                                time.Duration // since Start; TTFT and LastToken 0: no content came
	Usage                                                streaming.UsageData
	Reserved, Money                                      int64 // tokens; nano-dollars
	Attempts, Heartbeats, Malformed, Repaired, Unstopped int64
	End                                                  string // of the table of ends
	Status                                               int
	Finish, Limit, Code, Message                         string // Message is what the client was told
	Tries                                                []FinishedTry
}

// FinishedTry is one attempt of an answer. End is "ok" for the one that brought it.
type FinishedTry struct {
	Target     string
	Begin, End time.Duration // since the start of the answer
	Outcome    string        // of the table of ends
	Status     int           // the upstream's HTTP status; 0: there was none
	Message    string
}

// add remembers a row, of which it keeps nothing.
func (r *Recent) add(f *Finished) {
	r.mu.Lock()
	defer r.mu.Unlock()
	b := r.room()
	b.at = append(b.at, uint32(len(b.text)))
	b.text = appendFinished(b.text, f)
	r.rows++
	r.next++
}

// room is the newest block, with room for a row. mu is held.
func (r *Recent) room() *recentBlock {
	if n := len(r.blocks); n > 0 && len(r.blocks[n-1].text) <= recentBlockSize-recentRowSize {
		return r.blocks[n-1]
	}
	for len(r.blocks) > 1 && (r.rows-len(r.blocks[0].at) >= r.most || len(r.blocks) >= max(2, r.most>>6)) {
		r.spare = r.blocks[0]
		r.rows -= len(r.spare.at)
		r.blocks = append(r.blocks[:0], r.blocks[1:]...)
	}
	b := r.spare
	if r.spare = nil; b == nil {
		b = &recentBlock{text: make([]byte, 0, recentBlockSize)}
	}
	b.first, b.text, b.at = r.next, b.text[:0], b.at[:0]
	r.blocks = append(r.blocks, b)
	return b
}

// Rows visits what is remembered, newest first, from below the number before; 0 is from
// the newest. It ends when visit returns false.
func (r *Recent) Rows(before uint64, visit func(*Finished) bool) {
	if before == 0 {
		before = 1<<64 - 1
	}
	var at []uint32
	for {
		first, text, rows, ok := r.block(before, at[:0])
		if !ok {
			return
		}
		for i := len(rows) - 1; i >= 0; i-- {
			n := first + uint64(i)
			if n >= before {
				continue
			}
			f := Finished{Number: n}
			in := recentReader{text[rows[i]:]}
			in.finished(&f)
			if !visit(&f) {
				return
			}
		}
		at, before = rows, first
	}
}

// block copies the newest block that has a row below the number before.
func (r *Recent) block(before uint64, at []uint32) (first uint64, text string, rows []uint32, ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for i := len(r.blocks) - 1; i >= 0; i-- {
		if b := r.blocks[i]; b.first < before {
			return b.first, string(b.text), append(at, b.at...), true
		}
	}
	return 0, "", nil, false
}

// Find is one row by the id of its request.
func (r *Recent) Find(id string) (found Finished, ok bool) {
	r.Rows(0, func(f *Finished) bool {
		if f.ID == id {
			found, ok = *f, true
		}
		return !ok
	})
	return found, ok
}

// appendFinished writes a row; finished reads it.
func appendFinished(b []byte, f *Finished) []byte {
	begin := len(b)
	for _, s := range [...]string{
		f.ID, f.Op, f.Transport, f.Model, f.Target, f.Remote, f.Key, f.KeyName, f.Org, f.Team, f.User, f.End, f.Finish, f.Limit, f.Code,
	} {
		b = appendShort(b, s, recentName)
	}
	b = appendShort(b, f.Message, recentMessage)
	for _, n := range [...]int64{
		f.Start.UnixMicro(), int64(f.Took), int64(f.TTFT), int64(f.LastToken), f.Usage.Prompt, f.Usage.Cached, f.Usage.Completion, f.Usage.Reasoning,
		f.Reserved, f.Money, f.Attempts, f.Heartbeats, f.Malformed, f.Repaired, f.Unstopped, int64(f.Status),
	} {
		b = binary.AppendVarint(b, n)
	}
	b = append(b, flag(f.Stream)|flag(f.Usage.Estimated)<<1)
	for i := range f.Tries {
		if len(b)-begin > recentTries {
			break
		}
		t := &f.Tries[i]
		b = append(b, 1)
		b = appendShort(b, t.Target, recentName)
		b = appendShort(b, t.Outcome, recentName)
		b = appendShort(b, t.Message, recentName)
		b = binary.AppendVarint(b, int64(t.Begin))
		b = binary.AppendVarint(b, int64(t.End))
		b = binary.AppendVarint(b, int64(t.Status))
	}
	return append(b, 0)
}

func flag(b bool) byte {
	if b {
		return 1
	}
	return 0
}

// appendShort writes the length and as much of a text as is kept.
func appendShort(b []byte, s string, most int) []byte {
	if len(s) > most {
		for most > 0 && !utf8.RuneStart(s[most]) {
			most--
		}
		s = s[:most]
	}
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

// recentReader reads what appendFinished wrote in this process.
type recentReader struct{ rest string }

func (in *recentReader) finished(f *Finished) {
	for _, s := range [...]*string{
		&f.ID, &f.Op, &f.Transport, &f.Model, &f.Target, &f.Remote, &f.Key, &f.KeyName, &f.Org, &f.Team, &f.User, &f.End, &f.Finish, &f.Limit, &f.Code, &f.Message,
	} {
		*s = in.text()
	}
	f.Start = time.UnixMicro(in.number()).UTC()
	for _, n := range [...]*int64{
		(*int64)(&f.Took), (*int64)(&f.TTFT), (*int64)(&f.LastToken), &f.Usage.Prompt, &f.Usage.Cached, &f.Usage.Completion, &f.Usage.Reasoning,
		&f.Reserved, &f.Money, &f.Attempts, &f.Heartbeats, &f.Malformed, &f.Repaired, &f.Unstopped,
	} {
		*n = in.number()
	}
	f.Status = int(in.number())
	f.Usage.Total = f.Usage.Prompt + f.Usage.Completion
	flags := in.byte()
	f.Stream, f.Usage.Estimated = flags&1 != 0, flags&2 != 0
	for in.byte() == 1 {
		t := FinishedTry{Target: in.text(), Outcome: in.text(), Message: in.text()}
		t.Begin, t.End, t.Status = time.Duration(in.number()), time.Duration(in.number()), int(in.number())
		f.Tries = append(f.Tries, t)
	}
}

func (in *recentReader) byte() byte {
	b := in.rest[0]
	in.rest = in.rest[1:]
	return b
}

func (in *recentReader) uvarint() (n uint64) {
	for shift := 0; ; shift += 7 {
		b := in.byte()
		n |= uint64(b&0x7f) << shift
		if b < 0x80 {
			return n
		}
	}
}

func (in *recentReader) number() int64 {
	n := in.uvarint()
	return int64(n>>1) ^ -int64(n&1)
}

func (in *recentReader) text() string {
	n := in.uvarint()
	s := in.rest[:n]
	in.rest = in.rest[n:]
	return s
}

// remember adds an answer that ended as l says and f tells. Usually it allocates nothing.
func (r *Recent) remember(l *accessLine, c *call, p *streaming.Progress, f *failure) {
	var tries [4]streaming.Try
	var told [4]FinishedTry
	rep := &l.report
	row := Finished{
		ID: l.id, Op: l.op, Transport: l.transport, Model: l.model, Target: rep.Target, Remote: l.remote,
		Key: c.who.Key, KeyName: c.who.Name, Org: c.who.Org, Team: c.who.Team, User: c.who.User, Stream: l.stream,
		Start: rep.Start, Took: l.took, TTFT: rep.TTFT, LastToken: rep.LastToken, Usage: rep.Usage, Reserved: l.reserved, Money: l.money,
		Attempts: rep.Attempts, Heartbeats: rep.Heartbeats, Malformed: rep.Malformed, Repaired: rep.Repaired, Unstopped: rep.Unstopped,
		End: f.name, Status: f.status, Finish: rep.Stop, Limit: l.limit, Code: f.code, Message: f.message,
	}
	row.Tries = appendTries(told[:0], p.Tries(tries[:0]), l.err)
	r.add(&row)
}

// appendTries describes attempts; the last of them ended as the answer did, unless it had
// failed before.
func appendTries(dst []FinishedTry, tries []streaming.Try, end error) []FinishedTry {
	for i := range tries {
		err := tries[i].Err
		if err == nil && i == len(tries)-1 {
			err = end
		}
		t := FinishedTry{Target: tries[i].Target, Begin: tries[i].Begin, End: tries[i].End, Outcome: endOK.name}
		if err != nil {
			d := describe(err)
			t.Outcome, t.Message = d.name, d.message
			if e := providers.AsError(err); e != nil {
				t.Status = e.Status
			}
		}
		dst = append(dst, t)
	}
	return dst
}
