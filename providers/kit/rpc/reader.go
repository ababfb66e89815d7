package rpc

import (
	"context"
	"errors"
	"io"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/status"

	"sluice/streaming"
)

// What a Reader keeps of messages that its caller has not asked for yet. When it is full
// nothing more is read, so that gRPC's flow control holds the server back.
const (
	aheadMessages = 128
	aheadBytes    = 32 << 10 // and one message more
)

// When a Reader reads ahead: after so many messages in a row that were there already,
// which is what one that comes within atHand must have been, and until so many batches in
// a row were of one message.
const (
	atHand       = 10 * time.Microsecond
	quickToBegin = 2
	singlesToEnd = 8
)

// keptBytes is the largest buffer that is used again.
const keptBytes = 2 * aheadBytes

// Reader reads the messages of one stream in batches: one batch is what has come since
// the last. The library hands messages over one by one and cannot be asked whether there
// are more, so while they come together a goroutine reads ahead; while they come one by
// one the caller reads itself, and no message is handed from one goroutine to another.
//
// Next and Close belong to one goroutine at a time.
type Reader struct {
	ctx    context.Context
	cancel context.CancelFunc
	from   grpc.ClientStream

	own     pile     // what the caller was given
	views   [][]byte // into own
	quick   int      // messages in a row that were there already
	singles int      // batches in a row of one message
	ahead   *ahead   // nil while the caller reads itself
	err     error    // the stream is over
}

// Open sends one request over a stream of its own and nothing behind it. The stream ends
// with ctx, with its last message or by Close, which must be called. opts must not choose
// a codec.
func Open(ctx context.Context, cc grpc.ClientConnInterface, desc *grpc.StreamDesc, method string, request any, opts ...grpc.CallOption) (*Reader, error) {
	ctx, cancel := context.WithCancel(ctx)
	s, err := cc.NewStream(ctx, desc, method, append(opts, grpc.ForceCodecV2(Codec{}))...)
	if err == nil {
		if err = s.SendMsg(request); err == nil || errors.Is(err, io.EOF) { // io.EOF: what failed comes with the first message
			err = s.CloseSend()
		}
	}
	if err != nil {
		cancel()
		return nil, err
	}
	return NewReader(ctx, cancel, s), nil
}

// NewReader reads a stream whose codec is Codec. It lives no longer than ctx, which
// cancel ends.
func NewReader(ctx context.Context, cancel context.CancelFunc, s grpc.ClientStream) *Reader {
	return &Reader{ctx: ctx, cancel: cancel, from: s}
}

// Next waits for a message and returns it with those that have come behind it, in order.
// They are valid until the next call. An error comes alone, behind all messages, and stays;
// io.EOF is the status OK. A call that was cancelled fails at once, whatever has come.
func (r *Reader) Next() ([][]byte, error) {
	if r.err != nil {
		return nil, r.err
	}
	if r.ahead != nil {
		if more, err := r.take(); more {
			return r.views, err
		}
	}
	return r.one()
}

// one reads one message.
func (r *Reader) one() ([][]byte, error) {
	r.own.clear()
	began := streaming.Uptime()
	if r.err = r.from.RecvMsg(&r.own); r.err != nil {
		return nil, r.err
	}
	r.views = r.own.messages(r.views)
	if r.quick++; streaming.Uptime()-began >= atHand {
		r.quick = 0
	}
	if r.quick == quickToBegin {
		r.quick, r.singles = 0, 0
		r.ahead = readAhead(r.from)
	}
	return r.views, nil
}

// take takes what was read ahead. more is false when nothing was, and nothing will be.
func (r *Reader) take() (more bool, err error) {
	more, err = r.ahead.swap(&r.own, r.singles >= singlesToEnd)
	if gone := r.ctx.Err(); gone != nil {
		err = status.FromContextError(gone).Err()
	}
	if err != nil {
		r.views, r.err = nil, err
		return true, err
	}
	if !more { // a slow stream holds no large buffers
		r.ahead, r.own, r.views = nil, pile{}, nil
		return false, nil
	}
	if r.singles++; len(r.own.ends) > 1 {
		r.singles = 0
	}
	r.views = r.own.messages(r.views)
	return true, nil
}

// Close cancels the call and returns when nothing of it runs any more.
func (r *Reader) Close() {
	r.cancel()
	if r.ahead != nil {
		r.ahead.end()
	}
}

// ahead is the goroutine that reads ahead.
type ahead struct {
	from grpc.ClientStream
	done chan struct{} // closed when the goroutine has ended

	mu      sync.Mutex
	changed sync.Cond // the reader waits for room, or its taker for a message: never both
	come    pile
	err     error // of the stream; nothing comes behind it
	over    bool  // the goroutine reads no more
	leave   bool  // it is wanted no more
}

func readAhead(from grpc.ClientStream) *ahead {
	a := &ahead{from: from, done: make(chan struct{})}
	a.changed.L = &a.mu
	go a.run()
	return a
}

func (a *ahead) run() {
	defer close(a.done)
	var one pile
	for a.room() {
		one.clear()
		a.put(&one, a.from.RecvMsg(&one))
	}
}

// room waits for room, and reports whether to read on.
func (a *ahead) room() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	for a.come.full() && !a.leave {
		a.changed.Wait()
	}
	a.over = a.leave || a.err != nil
	if a.over {
		a.changed.Signal()
	}
	return !a.over
}

func (a *ahead) put(one *pile, err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.err = err; err == nil {
		a.come.add(one)
	}
	a.changed.Signal()
}

// swap gives what has come for an empty pile, and waits for it. leave ends the goroutine
// behind the message that it waits for; more is false when it has ended before.
func (a *ahead) swap(with *pile, leave bool) (more bool, err error) {
	with.clear()
	a.mu.Lock()
	defer a.mu.Unlock()
	a.leave = a.leave || leave
	for a.come.empty() && a.err == nil && !a.over {
		a.changed.Wait()
	}
	if a.come.empty() {
		return false, a.err
	}
	*with, a.come = a.come, *with
	if with.full() {
		a.changed.Signal()
	}
	return true, nil
}

// end waits for the end of a goroutine whose call was cancelled.
func (a *ahead) end() {
	a.mu.Lock()
	a.leave = true
	a.changed.Signal()
	a.mu.Unlock()
	<-a.done
}
