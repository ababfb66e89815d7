package handlers

import (
	"context"
	"errors"
	"net/http"
	"runtime/debug"
	"sync"
	"time"

	"sluice/handlers/auth"
	"sluice/providers"
	"sluice/streaming"
)

// session is what one WebSocket connection carries. One goroutine reads what the
// client sends and never waits for a write; each lane that has something to answer
// has one of its own.
type session struct {
	srv           *Server
	op            providers.Op
	path          string // of the request, as a POST has it
	who           auth.Principal
	id            string      // of the handshake
	remote, route string      // for the log
	hints         http.Header // of the handshake, for routing
	limit         int64       // bytes of a message

	sock   *streaming.Socket
	ctx    context.Context // of the answers
	cut    context.CancelCauseFunc
	quit   func() // leaves the drain and the count of connections
	faults int    // in a row; the reader's
	last   *time.Timer

	mu      sync.Mutex
	lanes   map[string]*wsLane // those with something running or waiting
	waiting int64              // bytes of the requests that wait in all lanes; at most limit
	closed  error              // why the connection closes once no lane is left
	all     sync.WaitGroup     // the lanes' goroutines
}

// begin ties a session to its connection. Nothing is read before run.
func (x *session) begin(sock *streaming.Socket) {
	x.sock = sock
	x.ctx, x.cut = context.WithCancelCause(sock.Context())
	counted := x.srv.opt.Observer.socket()
	leave := x.srv.opt.Drain.Join(x)
	unlist := x.srv.opt.Live.join(x)
	x.quit = func() { unlist(); leave(); counted() }
	if err := x.srv.standing(&x.who); err != nil {
		x.end(err)
	}
	if life := x.srv.opt.WebSocket.Lifetime; life > 0 {
		notice := min(lifetimeNotice, life/2)
		x.mu.Lock()
		x.last = time.AfterFunc(life-notice, func() { x.expire(notice) })
		x.mu.Unlock()
	}
}

// lifetimeNotice is how long before its end a connection is told of it.
const lifetimeNotice = time.Minute

// expire announces the end of the connection's lifetime, and later ends it.
func (x *session) expire(notice time.Duration) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.closed != nil || x.ctx.Err() != nil {
		return
	}
	if notice > 0 {
		x.sock.Lane().Post(goingAwayMessage(notice, "limit"))
		x.last = time.AfterFunc(notice, func() { x.expire(0) })
		return
	}
	x.cut(errLifetime)
	x.retire(errLifetime)
}

// GoingAway tells the client that no new requests are taken in a while.
func (x *session) GoingAway(in time.Duration) { x.sock.Lane().Post(goingAwayMessage(in, "drain")) }

// Refuse takes no new requests, and closes the connection when the running answers
// have ended.
func (x *session) Refuse() {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.retire(streaming.ErrDraining)
}

// end ends the answers with why, and then the connection.
func (x *session) end(why error) {
	x.sock.Lane().Post(describe(why).appendErrorMessage(nil, "", ""))
	x.mu.Lock()
	defer x.mu.Unlock()
	x.cut(why)
	x.retire(why)
}

// retire takes no new requests. mu is held.
func (x *session) retire(why error) {
	if x.closed == nil {
		x.closed = why
	}
	x.closeIdle()
}

// closeIdle closes a retired connection that has nothing left to do. mu is held.
func (x *session) closeIdle() {
	if x.closed != nil && len(x.lanes) == 0 {
		code, reason := closeCode(x.closed)
		x.sock.Close(code, reason, x.closed)
	}
}

// run reads until the connection is over.
func (x *session) run() {
	defer x.quit()
	defer x.all.Wait()
	defer func() {
		x.mu.Lock()
		defer x.mu.Unlock()
		if x.last != nil {
			x.last.Stop()
		}
	}()
	for {
		msg, err := x.sock.Read()
		if err == nil {
			err = x.handle(msg)
		} else if f := readFault(err, x.limit); f != nil {
			err = f
		} else {
			return
		}
		x.judge(err)
	}
}

// judge tells a client of its fault, and closes the connection when it is one too many.
func (x *session) judge(err error) {
	if err == nil {
		x.faults = 0
		return
	}
	x.faults++
	x.srv.logPanic(x.id, err)
	desc := describe(err)
	x.srv.opt.Observer.refuse(x.id, x.remote, x.route, desc)
	x.sock.Lane().Post(desc.appendErrorMessage(nil, "", ""))
	f := new(wsFault)
	switch {
	case !errors.As(err, &f):
		code, reason := closeCode(err)
		x.sock.Close(code, reason, err)
	case f.last || x.faults == maxFaults:
		x.sock.Close(f.close, desc.code, err)
	}
}

// maxFaults is how many faults in a row end a connection.
const maxFaults = 3

// handle does what one message says. The error is a fault of the client, or a panic.
func (x *session) handle(msg []byte) (err error) {
	defer func() {
		if v := recover(); v != nil {
			err = &streaming.PanicError{Value: v, Stack: debug.Stack()}
		}
	}()
	f, err := parseFrame(msg, x.srv.opt.Depth)
	if err != nil {
		return err
	}
	if f.kind == frameCreate {
		x.create(f)
		return nil
	}
	if int64(len(msg)) > x.srv.opt.WebSocket.Control {
		return tooLargeMessage("A message without a request", x.srv.opt.WebSocket.Control)
	}
	x.cancel(f.stream)
	return nil
}

// create starts an answer, or lets it wait for its turn.
func (x *session) create(f wsFrame) {
	id := newRequestID()
	req, err := x.request(f.request, id)
	if err == nil {
		err = x.allowed(req)
	}
	if err == nil {
		err = x.enqueue(f.stream, req)
	}
	if err == nil {
		return
	}
	x.mu.Lock()
	out := x.sock.Lane()
	if l := x.lanes[f.stream]; l != nil {
		out = l.out
	}
	x.mu.Unlock()
	desc := describe(err)
	x.srv.opt.Observer.refuse(id, x.remote, x.route, desc)
	out.Post(desc.appendErrorMessage(nil, f.stream, id))
}

// caller is who has opened the connection, as it is now.
func (x *session) caller() (auth.Principal, error) {
	if x.srv.opt.Current == nil {
		return x.who, nil
	}
	return x.srv.opt.Current(x.who)
}

func (x *session) allowed(req *providers.Request) error {
	who, err := x.caller()
	if err != nil {
		return err
	}
	srv, leave := x.newest()
	defer leave()
	if err := srv.permitted(&who, req, "ws"); err != nil {
		return err
	}
	hint(req, &who, nil)
	req.Hints.Header = x.hints
	return srv.decide(req)
}

// request is the same as a POST with this body would be, and a stream.
func (x *session) request(body []byte, id string) (*providers.Request, error) {
	if body == nil {
		return nil, providers.Invalid("request", "A create needs a request: the body that a POST to this path has.")
	}
	body, err := impliedStream(body)
	if err != nil {
		return nil, err
	}
	srv, leave := x.newest()
	defer leave()
	return srv.parseBody(x.op, x.path, "", "application/json", body, id)
}

// newest is the server of the newest configuration: answers of an old connection are given
// as those of a new one would be. The connection's own bounds stay as they were.
func (x *session) newest() (srv *Server, leave func()) {
	if x.srv.opt.Newest == nil {
		return x.srv, func() {}
	}
	return x.srv.opt.Newest()
}
