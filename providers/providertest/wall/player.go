package wall

import (
	"bytes"
	"iter"
	"slices"
	"time"
)

type kind int

const (
	preamble kind = iota // the role, response.created
	delta                // counts as a token
	extra                // neither
	finish               // the finish of a choice and what belongs to it
	tail                 // usage, [DONE] and what follows
)

// part is one event of a stream. Its bytes are valid until the next one.
type part struct {
	kind kind
	name string // of the event; "" means no event line
	data []byte
	raw  bool // data is the whole framing
	more bool // a delta of the same step as the one before: another choice
	seq  int  // offset in data at which the sequence number goes; 0 for none
}

// dialect makes the events of one answer.
type dialect interface {
	parts() iter.Seq[part]
	failure(shape string) (parts []part, done, goOn bool)
	ping() part // a chunk that says nothing
}

var donePart = part{kind: tail, data: []byte("[DONE]")}

// player brings the events of a dialect to the client with the script's framing, pace and faults.
type player struct {
	*call
	d        dialect
	buf      []byte // frames that are not out yet
	held     int    // deltas among them
	pos      int    // steps of deltas begun
	events   int
	junk     int    // deltas still to be replaced by broken JSON
	spoke    bool   // the wait for the first token is over
	finished bool   // the position after the last delta is passed
	tailed   bool   // the position after the finish is passed
	sent     int    // bytes of the next frame that are out already
	owed     []byte // blank line kept back (Unterminated)
	scratch  []byte
	numbered []byte
	seq      int // numbered events so far
}

func (c *call) play(d dialect) error {
	h := c.out.rw.Header()
	h.Set("Cache-Control", "no-cache")
	h.Set("X-Accel-Buffering", "no")
	c.out.header(&c.s, 200, "text/event-stream; charset=utf-8")
	p := &player{call: c, d: d}
	err := p.faultsAt(AfterHeaders, part{})
	if err == nil {
		err = p.run()
	}
	return err
}

func (p *player) run() error {
	for pt := range p.d.parts() {
		if err := p.step(pt); err != nil {
			return err
		}
	}
	if err := p.passFinish(part{}); err != nil {
		return err
	}
	if err := p.passTail(part{}); err != nil {
		return err
	}
	if err := p.flush(); err != nil {
		return err
	}
	if p.s.Hold > 0 {
		// Everything is out: a client that leaves now has left a complete answer.
		_ = p.out.sleep(p.s.Hold)
		return nil
	}
	return p.out.end()
}

func (p *player) step(pt part) error {
	switch pt.kind {
	case preamble:
		if p.s.Role != "early" {
			if err := p.waitFirst(); err != nil {
				return err
			}
		}
	case delta:
		return p.delta(pt)
	case finish:
		if err := p.passFinish(pt); err != nil {
			return err
		}
	case tail:
		if err := p.passTail(pt); err != nil {
			return err
		}
	}
	p.emit(pt)
	if p.s.Burst > 1 && (pt.kind == finish || pt.kind == tail) {
		return nil
	}
	return p.flush()
}

func (p *player) delta(pt part) error {
	if !pt.more {
		if p.held >= max(p.s.Burst, 1) {
			if err := p.flush(); err != nil {
				return err
			}
		}
		if err := p.faultsAt(After(p.pos), pt); err != nil {
			return err
		}
		if err := p.pace(); err != nil {
			return err
		}
		p.pos++
	}
	switch {
	case p.junk > 0 && p.s.MalformedLossy:
		p.junk--
		pt = broken(pt)
	case p.s.Giant == After(p.pos-1) && !pt.more:
		pt.data = p.pad(pt.data)
	}
	p.emit(pt)
	p.held++
	if p.s.Burst <= 1 {
		return p.flush()
	}
	return nil
}

// pace waits for the first token, or between writes.
func (p *player) pace() error {
	if !p.spoke {
		return p.waitFirst()
	}
	if p.held > 0 || p.pos == 0 {
		return nil
	}
	return p.wait(p.s.Delay, p.s.Comments)
}

func (p *player) waitFirst() error {
	if p.spoke {
		return nil
	}
	p.spoke = true
	every := p.s.Keepalive
	if every == 0 {
		every = p.s.Comments
	}
	return p.wait(p.s.First, every)
}

// wait sends a ping every so often while it waits.
func (p *player) wait(d, every time.Duration) error {
	if every > 0 {
		for ; d > every; d -= every {
			if err := p.out.sleep(every); err != nil {
				return err
			}
			p.appendPing()
			if err := p.flush(); err != nil {
				return err
			}
		}
	}
	return p.out.sleep(d)
}

func (p *player) passFinish(pt part) error {
	if p.finished {
		return nil
	}
	p.finished = true
	if err := p.waitFirst(); err != nil {
		return err
	}
	return p.faultsAt(After(p.pos), pt)
}

func (p *player) passTail(pt part) error {
	if p.tailed {
		return nil
	}
	p.tailed = true
	if err := p.passFinish(pt); err != nil {
		return err
	}
	return p.faultsAt(AfterFinish, pt)
}

// faultsAt does what the script means at a position: broken JSON, a stall, an error, a broken connection. next is
// the event that would come.
func (p *player) faultsAt(at At, next part) error {
	s := &p.s
	if s.Malformed == at {
		p.junk = max(s.MalformedRun, 1)
		for ; p.junk > 0 && !s.MalformedLossy; p.junk-- {
			p.emit(broken(p.d.ping()))
		}
	}
	if s.Stall != at && s.Reset != at && s.Abort != at && s.Cut != at && s.Error != at {
		return nil
	}
	if err := p.flush(); err != nil {
		return err
	}
	if s.Error == at {
		if err := p.fail(); err != nil {
			return err
		}
	}
	rest := p.preview(next)
	if s.Stall == at && s.Comments > 0 {
		// The pings of a stalled server: the silence is split so that they go out.
		if err := p.stall(); err != nil {
			return err
		}
		stall := s.Stall
		s.Stall = Never
		defer func() { s.Stall = stall }()
	}
	err := p.breakAt(at, rest)
	p.sent = len(rest) / 2
	if err == errEnded && s.Cut == at {
		_ = p.out.end()
	}
	return err
}

func (p *player) stall() error {
	d := p.s.StallFor
	if d == 0 {
		d = maxDuration
	}
	return p.wait(d, p.s.Comments)
}

// fail sends the script's error event and ends the answer, unless the shape's server goes on.
func (p *player) fail() error {
	parts, done, goOn := p.d.failure(p.s.ErrorShape)
	for _, pt := range parts {
		p.emit(pt)
	}
	if goOn {
		return p.flush()
	}
	if p.s.ErrorDone != "" {
		done = p.s.ErrorDone == "yes"
	}
	if done {
		p.emit(donePart)
	}
	err := p.flush()
	if err == nil {
		err = p.out.end()
	}
	if err == nil {
		err = p.stop(Failed, errEnded)
	}
	return err
}

func (p *player) emit(pt part) {
	start := len(p.buf)
	p.buf = p.frame(p.buf, pt)
	if p.sent > 0 {
		p.buf = slices.Delete(p.buf, start, start+p.sent)
		p.sent = 0
	}
}

// preview returns the frame of an event of which half goes out before a fault.
func (p *player) preview(next part) []byte {
	if !p.s.Partial || next.data == nil {
		return nil
	}
	ahead := *p
	ahead.numbered = nil
	ahead.scratch = nil
	return ahead.frame(nil, next)
}

func (p *player) flush() error {
	if len(p.buf) == 0 {
		return nil
	}
	if p.held > 0 {
		p.rec.tokens.Add(int64(p.held))
		p.rec.wall.stir()
	}
	err := p.out.write(p.buf)
	p.buf, p.held = p.buf[:0], 0
	return err
}

// broken makes an event whose payload is no JSON.
func broken(pt part) part {
	pt.data, pt.seq = pt.data[:len(pt.data)*2/3], 0
	return pt
}

// pad makes an event of the script's size out of a chunk, with a field of no meaning.
func (p *player) pad(data []byte) []byte {
	size := p.s.GiantSize
	if size == 0 {
		size = 1 << 20
	}
	const head, foot = `,"x_pad":"`, `"}`
	body := bytes.TrimSuffix(data, []byte("}"))
	n := max(0, size-len(body)-len(head)-len(foot))
	return slices.Concat(body, []byte(head), bytes.Repeat([]byte{'x'}, n), []byte(foot))
}
