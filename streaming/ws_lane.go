package streaming

import (
	"bytes"
	"errors"

	"github.com/gorilla/websocket"
)

// Lane is the place of one stream of answers in the queue of a Socket. What is sent
// on it leaves in the order in which it was sent; lanes take turns. Its fields are
// guarded by the socket.
type Lane struct {
	socket *Socket
	queue  []byte     // whole frames that wait
	lent   []byte     // whole frames of a sender that waits
	taken  chan error // tells that sender that its frames have been written
	next   *Lane
	inTurn bool
}

// Lane returns a new lane. It needs no closing.
func (s *Socket) Lane() *Lane { return &Lane{socket: s} }

// laneShare is the part of a socket's queue that one lane may fill, so that a flood
// on one leaves room for the others. The last such part is kept for Post.
const laneShare = 16

// room reports whether n more bytes may be copied into the queue. mu is held.
func (l *Lane) room(n int) bool {
	limit := l.socket.opt.Queue
	share := limit / laneShare
	return l.lent == nil && len(l.queue)+n <= share && l.socket.queued+n <= limit-share
}

func (l *Lane) enqueue(frames []byte) {
	l.queue = append(l.queue, frames...)
	l.socket.queued += len(frames)
	l.socket.push(l)
}

// keptIdle bounds the buffer that a lane keeps while nothing flows.
const keptIdle = 4 << 10

func (l *Lane) empty() {
	l.socket.queued -= len(l.queue)
	l.queue = l.queue[:0]
	if cap(l.queue) > keptIdle {
		l.queue = nil
	}
}

// Post queues one message without ever waiting, for replies of the reader. A client
// that makes replies faster than it reads them is too slow.
func (l *Lane) Post(message []byte) {
	s := l.socket
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil {
		return
	}
	before := len(l.queue)
	l.queue = appendFrame(l.queue, websocket.TextMessage, message)
	s.queued += len(l.queue) - before
	s.push(l)
	if s.queued > s.opt.Queue {
		_ = s.fail(ErrSlow)
		return
	}
	s.wake()
}

// Sink returns the sink for one answer. The encoder's framing must be LaneFraming,
// and whatever else it appends must end like it.
func (l *Lane) Sink(enc Encoder) *LaneSink { return &LaneSink{lane: l, enc: enc} }

// LaneFraming puts each payload into a message of its own, between before and after.
func LaneFraming(before, after string) Framing {
	return Framing{Before: before, After: after + string(rune(messageEnd))}
}

// EndMessage ends a message that an encoder for a lane has appended to dst.
func EndMessage(dst []byte) []byte { return append(dst, messageEnd) }

// LaneSink is the sink that writes an answer as messages of a WebSocket connection.
// It has no status to hold back: its errors are messages as well.
type LaneSink struct {
	lane *Lane
	enc  Encoder
}

// Send writes a batch as one write, however many messages it is. The error of a client
// that is too slow is ErrSlow, and the whole connection ends with it.
func (k *LaneSink) Send(batch []Event) (err error) {
	p := outBuffers.Get().(*[]byte)
	buf := append(*p, frameRoom...)
	defer func() { giveOut(p, buf) }()
	for i := range batch {
		if buf, err = k.enc.Append(buf, &batch[i]); err != nil {
			return err
		}
	}
	return k.write(buf)
}

// Heartbeat does nothing: signs of life belong to the connection.
func (k *LaneSink) Heartbeat() (sent bool, err error) { return false, nil }

// End writes what ends the answer, whatever was sent before.
func (k *LaneSink) End(err error) error {
	if errors.Is(err, ErrClientGone) || errors.Is(err, ErrSlow) {
		return err
	}
	if werr := k.write(k.enc.AppendEnd([]byte(frameRoom), err)); werr != nil && err == nil {
		return werr
	}
	return err
}

// write cuts what the encoder appended behind frameRoom into frames. A single message
// becomes one where it stands.
func (k *LaneSink) write(buf []byte) error {
	text := buf[len(frameRoom):]
	if len(text) == 0 {
		return nil
	}
	if end := bytes.IndexByte(text, messageEnd); end == len(text)-1 {
		at := putHeader(buf[:len(frameRoom)], websocket.TextMessage, end)
		return k.lane.socket.write(k.lane, buf[at:len(buf)-1])
	}
	p := outBuffers.Get().(*[]byte)
	frames := *p
	defer func() { giveOut(p, frames) }()
	for len(text) > 0 {
		end := bytes.IndexByte(text, messageEnd)
		if end < 0 {
			return errors.New("an encoder left a message open")
		}
		frames = appendFrame(frames, websocket.TextMessage, text[:end])
		text = text[end+1:]
	}
	return k.lane.socket.write(k.lane, frames)
}
