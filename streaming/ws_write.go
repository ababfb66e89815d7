package streaming

import (
	"encoding/binary"
	"errors"
	"time"

	"github.com/gorilla/websocket"
)

// messageEnd ends each JSON text that an encoder appends for a lane. It stands in no
// JSON text (RFC 8259 section 7).
const messageEnd = 0x1e

// frameRoom is the place of the longest header of a frame to a client.
const frameRoom = "\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"

// putHeader writes the header of an unmasked frame that is a whole message of n bytes
// (RFC 6455 section 5.2) at the end of room, and tells where it begins.
func putHeader(room []byte, opcode byte, n int) (start int) {
	const fin = 0x80
	size := 0
	switch start = len(room) - 2; {
	case n <= 125:
		size = n
	case n <= 0xffff:
		start -= 2
		size = 126
		binary.BigEndian.PutUint16(room[start+2:], uint16(n))
	default:
		start -= 8
		size = 127
		binary.BigEndian.PutUint64(room[start+2:], uint64(n))
	}
	room[start], room[start+1] = fin|opcode, byte(size)
	return start
}

// appendFrame adds a frame that is a whole message.
func appendFrame(dst []byte, opcode byte, payload []byte) []byte {
	var room [len(frameRoom)]byte
	dst = append(dst, room[putHeader(room[:], opcode, len(payload)):]...)
	return append(dst, payload...)
}

// frameEnd finds the end of the frame in b that holds the byte before n. b begins
// with a frame.
func frameEnd(b []byte, n int) int {
	at := 0
	for at < n && at+2 <= len(b) {
		size := int(b[at+1])
		switch head := b[at+2:]; size {
		case 126:
			size = 2 + int(binary.BigEndian.Uint16(head))
		case 127:
			size = 8 + int(binary.BigEndian.Uint64(head))
		}
		at += 2 + size
	}
	return min(at, len(b))
}

// write sends whole frames of a lane, or queues a copy of them while somebody else
// writes. Where the queue has no room it waits, with the bytes where they are, until
// they have been written. How long is up to the client: as long as it takes what is
// written piece by piece, each within the write limit, it may be slow.
func (s *Socket) write(l *Lane, b []byte) error {
	s.mu.Lock()
	switch {
	case s.err != nil:
		defer s.mu.Unlock()
		return s.err
	case !s.busy && !s.pending():
		s.busy = true
		s.mu.Unlock()
		n, err := s.put(b)
		s.mu.Lock()
		defer s.mu.Unlock()
		s.busy = false
		if err != nil || s.dead {
			return s.failed(err, b, n)
		}
		s.wake()
		return nil
	case l.room(len(b)):
		defer s.mu.Unlock()
		l.enqueue(b)
		return nil
	}
	return s.lend(l, b)
}

// lend has b written by whoever writes now, and waits for it. mu is held, and is
// given back.
func (s *Socket) lend(l *Lane, b []byte) error {
	l.lent, l.taken = b, make(chan error, 1)
	s.push(l)
	s.mu.Unlock()
	return <-l.taken
}

// pending reports whether anything waits to be written. mu is held.
func (s *Socket) pending() bool {
	return s.head != nil || len(s.control) > 0 || len(s.closing) > 0 && !s.saidClose
}

// wake sees to it that what is pending gets written. mu is held.
func (s *Socket) wake() {
	if !s.busy && !s.dead && s.pending() {
		s.busy = true
		go s.drain()
	}
}

// drain writes until nothing is pending.
func (s *Socket) drain() {
	p := outBuffers.Get().(*[]byte)
	buf := *p
	defer func() { giveOut(p, buf) }()
	s.mu.Lock()
	defer s.mu.Unlock()
	for !s.dead && s.pending() {
		b, from := s.take(buf[:0])
		if from == nil {
			buf = b
		}
		last := s.saidClose
		s.mu.Unlock()
		n, err := s.put(b)
		s.mu.Lock()
		if from != nil {
			from.taken <- err
		}
		if err != nil || s.dead {
			s.busy = false
			_ = s.failed(err, b, n)
			return
		}
		if last {
			s.await()
		}
	}
	s.busy = false
	if s.dead {
		s.leave(nil)
	}
}

// take gathers what is to be written next: control frames, then the lanes in turn,
// up to one piece. When the next lane has lent its bytes, it takes these alone. The
// close frame comes when nothing else is left. mu is held.
func (s *Socket) take(out []byte) (b []byte, from *Lane) {
	out = append(out, s.control...)
	s.control = nil
	for s.head != nil {
		l := s.head
		if n := len(l.queue); n > 0 {
			if len(out) > 0 && len(out)+n > maxPiece {
				return out, nil
			}
			out = append(out, l.queue...)
			l.empty()
		}
		if l.lent == nil {
			s.pop()
			continue
		}
		if len(out) > 0 {
			return out, nil
		}
		b, l.lent = l.lent, nil
		s.pop()
		return b, l
	}
	if len(s.closing) > 0 && !s.saidClose {
		s.saidClose = true
		out = append(out, s.closing...)
	}
	return out, nil
}

// push puts a lane at the end of the turn. mu is held.
func (s *Socket) push(l *Lane) {
	if l.inTurn {
		return
	}
	l.inTurn, l.next = true, nil
	if s.tail == nil {
		s.head = l
	} else {
		s.tail.next = l
	}
	s.tail = l
}

// pop takes the first lane out of the turn. mu is held.
func (s *Socket) pop() {
	l := s.head
	s.head, l.next, l.inTurn = l.next, nil, false
	if s.head == nil {
		s.tail = nil
	}
}

// drop forgets what is queued; lanes that wait are told why. mu is held, err is set.
func (s *Socket) drop() {
	for s.head != nil {
		l := s.head
		l.empty()
		if l.lent != nil {
			l.lent = nil
			l.taken <- s.err
		}
		s.pop()
	}
	s.control = nil
}

// put writes b whole, in pieces of one deadline each, and tells how much was taken.
// Only one goroutine is in it: who set busy.
func (s *Socket) put(b []byte) (n int, err error) {
	for {
		if err := s.arm(); err != nil {
			return n, err
		}
		m, err := s.conn.Write(b[n:min(len(b), n+maxPiece)])
		n += m
		if err != nil || n == len(b) {
			return n, writeError(err)
		}
	}
}

// arm gives the next write its deadline; a young one stays, as in clientWriter.
func (s *Socket) arm() error {
	limit := s.opt.Write
	slack := limit / 10
	now := Uptime()
	if limit <= 0 || s.armed > 0 && now-s.armed < slack {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.dead {
		return s.err
	}
	s.armed = now
	return writeError(s.conn.SetWriteDeadline(time.Now().Add(limit + slack)))
}

// fail ends the connection because of a write or a missing sign of life, and returns
// why it ended. mu is held.
func (s *Socket) fail(err error) error {
	if s.dead {
		return s.err
	}
	if s.err == nil {
		s.err = err
	}
	s.dead = true
	s.drop()
	s.cancel(s.err)
	if s.busy {
		_ = s.conn.SetWriteDeadline(time.Unix(1, 0)) // its writer comes back, and leaves
	} else {
		s.leave(nil)
	}
	return s.err
}

// failed is fail for whoever wrote b, of which the first n bytes were taken. mu is
// held.
func (s *Socket) failed(err error, b []byte, n int) error {
	s.busy = true
	err = s.fail(err)
	s.busy = false
	s.leave(b[n:frameEnd(b, n)])
	return err
}

// leave closes a connection that has failed. A client that was too slow has another
// moment to learn it; rest is what it still lacks of a frame that it has a part of.
// mu is held.
func (s *Socket) leave(rest []byte) {
	if !errors.Is(s.err, ErrSlow) || s.saidClose {
		s.said()
		_ = s.conn.Close()
		return
	}
	s.saidClose = true
	rest = append([]byte(nil), rest...)
	rest = appendFrame(rest, websocket.CloseMessage, websocket.FormatCloseMessage(int(CloseTryLater), ErrSlow.Error()))
	go func() {
		_ = s.conn.SetWriteDeadline(time.Now().Add(closeWait))
		_, err := s.conn.Write(rest)
		s.mu.Lock()
		defer s.mu.Unlock()
		s.await()
		if err != nil {
			_ = s.conn.Close()
		}
	}()
}

// await gives the client a moment to answer the close frame that has been written.
// mu is held.
func (s *Socket) await() {
	s.said()
	_ = s.conn.SetReadDeadline(time.Now().Add(closeWait))
}

// said tells who waits for the close frame that no more will come. mu is held.
func (s *Socket) said() {
	s.saidClose = true
	select {
	case <-s.closed:
	default:
		close(s.closed)
	}
}
