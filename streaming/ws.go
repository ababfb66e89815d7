package streaming

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gorilla/websocket"
)

// CloseCode says why a WebSocket connection ended (RFC 6455 section 7.4.1).
type CloseCode int

// The close codes that the gateway sends.
const (
	CloseNormal      CloseCode = websocket.CloseNormalClosure
	CloseUnsupported CloseCode = websocket.CloseUnsupportedData
	CloseBadData     CloseCode = websocket.CloseInvalidFramePayloadData
	ClosePolicy      CloseCode = websocket.ClosePolicyViolation
	CloseTooBig      CloseCode = websocket.CloseMessageTooBig
	CloseInternal    CloseCode = websocket.CloseInternalServerErr
	CloseRestart     CloseCode = websocket.CloseServiceRestart
	CloseTryLater    CloseCode = websocket.CloseTryAgainLater
)

// Messages that a client may not send. The connection is still there after them, to
// be closed with words.
var (
	// ErrBinary is a message that is not text.
	ErrBinary = errors.New("a binary message")
	// ErrNotUTF8 is a text message that is not UTF-8 (RFC 6455 section 8.1).
	ErrNotUTF8 = errors.New("a text message that is not UTF-8")
	// ErrMessageSize is a message over the size limit.
	ErrMessageSize = errors.New("a message over the size limit")
	// ErrMessageTime is a message that did not come whole in time.
	ErrMessageTime = errors.New("a message that took too long")
)

// ErrNotWebSocket says that a request is no handshake of RFC 6455 section 4.2.1. The
// connection has not been touched.
var ErrNotWebSocket = errors.New("not a WebSocket handshake")

// SocketOptions bound one WebSocket connection.
type SocketOptions struct {
	Ping       time.Duration // between two pings; 0: never
	Pong       time.Duration // within which a ping must bring a sign of life
	Write      time.Duration // for one write to the client; 0: no bound
	Message    time.Duration // for a message to come whole, from its first bytes; 0: no bound
	MaxMessage int64         // bytes of one message
	Queue      int           // bytes waiting to be written, over all lanes
}

// closeWait is how long either side of a close handshake is waited for, and
// closeRead how many bytes a client may still send meanwhile.
const (
	closeWait = 2 * time.Second
	closeRead = 8 << 20
)

// Socket is one WebSocket connection (RFC 6455) that carries many answers side by
// side, each on a Lane. One goroutine calls Read until it fails; everything else may
// be called by anyone. Frames to the client are put together here and not by the
// library, so that a batch of them is one write and costs no allocation.
//
// An idle socket has no goroutine but its reader. Whoever has something to write
// while nobody writes does so itself; what comes meanwhile is queued and served by a
// goroutine that lives as long as there is something in the queue.
type Socket struct {
	opt    SocketOptions
	conn   net.Conn
	ws     *websocket.Conn // reads and shakes hands
	ctx    context.Context
	cancel context.CancelCauseFunc
	heard  atomic.Int64  // on the process's clock: when the client's last bytes came
	armed  time.Duration // on the process's clock: when the write deadline was last moved; belongs to whoever writes

	mu         sync.Mutex
	busy       bool   // somebody writes
	head, tail *Lane  // lanes with something to write, in turn
	queued     int    // bytes in the queues of all lanes
	control    []byte // pings and pongs to be written
	closing    []byte // the close frame, written after everything else
	closed     chan struct{}
	saidClose  bool  // closed is closed: the close frame has been written, or never will be
	err        error // why nothing more is taken
	dead       bool  // nothing more is written
	beat       *time.Timer
	nextPing   time.Duration // on the process's clock
	pinged     time.Duration // on the process's clock: the oldest ping that brought no sign of life yet
	waiting    bool          // for that sign
}

// IsUpgrade reports whether a request asks for a WebSocket connection.
func IsUpgrade(r *http.Request) bool { return websocket.IsWebSocketUpgrade(r) }

// Upgrade takes the connection over from the HTTP server. header goes into the
// response; its Sec-Websocket-Protocol is the subprotocol. The socket's context
// descends from ctx and not from the request's, so that the handler may return and
// free what the server keeps for it. The error is ErrNotWebSocket when the request
// can still be answered.
func Upgrade(ctx context.Context, w http.ResponseWriter, r *http.Request, header http.Header, o SocketOptions) (*Socket, error) {
	s := &Socket{opt: o, closed: make(chan struct{})}
	s.heard.Store(int64(Uptime()))
	u := websocket.Upgrader{
		ReadBufferSize:  readBuffer,
		WriteBufferPool: &unusedPool, // else each connection holds a buffer for writes that it never makes
		CheckOrigin:     func(*http.Request) bool { return true },
		Error:           func(http.ResponseWriter, *http.Request, int, error) {},
	}
	ws, err := u.Upgrade(&hijacker{ResponseWriter: w, socket: s}, r, header)
	if shake := new(websocket.HandshakeError); errors.As(err, shake) {
		return nil, fmt.Errorf("%w: %w", ErrNotWebSocket, err)
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrClientGone, err)
	}
	s.ws = ws
	s.ctx, s.cancel = context.WithCancelCause(ctx)
	ws.SetPingHandler(s.answerPing)
	ws.SetCloseHandler(s.answerClose)
	s.startPings()
	return s, nil
}

// readBuffer is small, for reads of what is larger pass it by.
const readBuffer = 1 << 10

var unusedPool sync.Pool

// hijacker gives the library a connection on which the socket watches.
type hijacker struct {
	http.ResponseWriter
	socket *Socket
}

func (h *hijacker) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	conn, rw, err := http.NewResponseController(h.ResponseWriter).Hijack()
	if err != nil {
		return nil, nil, err
	}
	h.socket.conn = conn
	return &wire{Conn: conn, socket: h.socket}, rw, nil
}

// wire is the connection as the library sees it.
type wire struct {
	net.Conn
	socket *Socket
	shaken bool // the handshake has been answered
	late   int  // bytes read of a client that has been told to stop
}

// Read notes that the client lives.
func (w *wire) Read(p []byte) (int, error) {
	n, err := w.Conn.Read(p)
	if n > 0 {
		w.socket.heard.Store(int64(Uptime()))
	}
	if w.socket.over() {
		if w.late += n; w.late > closeRead {
			return n, net.ErrClosed
		}
	}
	return n, err
}

// Write passes the answer to the handshake on. All that the library writes after it
// is the close frame of a protocol fault, which must not fall between others.
func (w *wire) Write(p []byte) (int, error) {
	if !w.shaken {
		w.shaken = true
		return w.Conn.Write(p)
	}
	w.socket.shut(p, ErrClientGone, false)
	return len(p), nil
}

// SetWriteDeadline does nothing: the socket sets its own.
func (w *wire) SetWriteDeadline(time.Time) error { return nil }

// Context ends when nothing can be sent any longer, with the reason as its cause:
// ErrClientGone, ErrSlow, or what was given to Close.
func (s *Socket) Context() context.Context { return s.ctx }

// over reports whether nothing more is taken.
func (s *Socket) over() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err != nil
}

// Close ends the connection in order: what is queued is written, then a close frame,
// and Read fails once the client has answered it. cause ends the context. Only the
// first close counts. The reason has at most 123 bytes.
func (s *Socket) Close(code CloseCode, reason string, cause error) {
	s.shut(appendFrame(nil, websocket.CloseMessage, websocket.FormatCloseMessage(int(code), reason)), cause, false)
}

// answerClose is called by the reader when the client closes.
func (s *Socket) answerClose(code int, _ string) error {
	s.shut(appendFrame(nil, websocket.CloseMessage, websocket.FormatCloseMessage(code, "")), ErrClientGone, true)
	return nil
}

// shut takes nothing more and writes a close frame last. now drops what is queued.
func (s *Socket) shut(frame []byte, cause error, now bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil {
		return
	}
	s.err = cause
	s.closing = append(s.closing, frame...)
	if now {
		s.drop()
	}
	s.cancel(cause)
	s.wake()
}

// maxControl bounds the pings and pongs that wait to be written, in bytes.
const maxControl = 4 << 10

// answerPing is called by the reader. A client that pings faster than it reads gets
// an answer to its latest ping (RFC 6455 section 5.5.3).
func (s *Socket) answerPing(data string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err == nil {
		if len(s.control) > maxControl {
			s.control = s.control[:0]
		}
		s.control = appendFrame(s.control, websocket.PongMessage, []byte(data))
		s.wake()
	}
	return nil
}

func (s *Socket) startPings() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.opt.Ping > 0 {
		s.nextPing = Uptime() + s.opt.Ping
		s.beat = time.AfterFunc(s.opt.Ping, s.tick)
	}
}

// tick sends a ping when one is due and looks whether an earlier one brought a sign
// of life, which is any byte: a pong may have to wait behind a long message.
func (s *Socket) tick() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil {
		return
	}
	now := Uptime()
	if s.waiting && s.heard.Load() >= int64(s.pinged) {
		s.waiting = false
	}
	if s.waiting && now >= s.pinged+s.opt.Pong {
		s.fail(fmt.Errorf("%w: no sign of life for %s after a ping", ErrClientGone, s.opt.Pong))
		return
	}
	if now >= s.nextPing {
		s.nextPing = now + s.opt.Ping
		if !s.waiting {
			s.pinged, s.waiting = now, true
		}
		s.control = appendFrame(s.control, websocket.PingMessage, nil)
		s.wake()
	}
	next := s.nextPing
	if s.waiting {
		next = min(next, s.pinged+s.opt.Pong)
	}
	s.beat.Reset(next - now)
}
