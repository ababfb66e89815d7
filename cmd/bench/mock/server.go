package mock

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// grace is added to a stream's own length to bound its writes.
	grace       = 60 * time.Second
	maxBody     = 1 << 20
	keepAlive   = 15 * time.Minute
	modelsReply = `{"object":"list","data":[{"id":"bench","object":"model","created":1794700000,"owned_by":"bench"}]}` + "\n"
)

// Server answers HTTP/1.1 by hand: one goroutine and one small buffer per
// connection. GET /stats tells how many streams it is generating.
type Server struct {
	active atomic.Int64
	whole  sync.Map // Shape → prebuilt response
}

// Stats is the answer of GET /stats.
type Stats struct {
	Active int64 `json:"active"` // streams whose generation has not ended
}

// Serve accepts connections until the listener is closed.
func (s *Server) Serve(l net.Listener) error {
	for {
		c, err := l.Accept()
		switch {
		case errors.Is(err, net.ErrClosed):
			return nil
		case err != nil:
			return fmt.Errorf("accept: %w", err)
		}
		go s.serve(c)
	}
}

// serve answers the requests of one connection until either side ends it.
func (s *Server) serve(c net.Conn) {
	defer c.Close()
	br := bufio.NewReaderSize(c, 2048)
	var scratch []byte
	for {
		if c.SetReadDeadline(time.Now().Add(keepAlive)) != nil {
			return
		}
		req, err := http.ReadRequest(br)
		if err != nil {
			return
		}
		body, err := io.ReadAll(io.LimitReader(req.Body, maxBody))
		if err != nil {
			return
		}
		if scratch, err = s.answer(c, scratch[:0], req, body); err != nil || req.Close {
			return
		}
	}
}

// answer writes one response and returns the scratch buffer for reuse.
func (s *Server) answer(c net.Conn, scratch []byte, req *http.Request, body []byte) ([]byte, error) {
	switch req.URL.Path {
	case "/stats":
		scratch = response(scratch, "200 OK", fmt.Sprintf(`{"active":%d}`, s.active.Load()))
	case "/v1/models":
		scratch = response(scratch, "200 OK", modelsReply)
	case "/v1/chat/completions":
		shape, err := ParseRequest(body)
		switch {
		case err != nil:
			scratch = response(scratch, "400 Bad Request", fmt.Sprintf(`{"error":{"message":%q,"type":"invalid_request_error","param":null,"code":null}}`, err))
		case shape.Stream:
			return s.stream(c, scratch, shape)
		default:
			_, err := c.Write(s.wholeFor(shape))
			return scratch, err
		}
	default:
		scratch = response(scratch, "404 Not Found", `{"error":{"message":"not found","type":"invalid_request_error","param":null,"code":null}}`)
	}
	_, err := c.Write(scratch)
	return scratch, err
}

func (s *Server) wholeFor(shape Shape) []byte {
	if b, ok := s.whole.Load(shape); ok {
		return b.([]byte)
	}
	b := whole(nil, shape)
	s.whole.Store(shape, b)
	return b
}

// stream generates one answer: token i leaves i*Every after the start, whatever
// was late before; the first goes out with the head. A client that has gone
// shows as a failed write.
func (s *Server) stream(c net.Conn, scratch []byte, shape Shape) ([]byte, error) {
	s.active.Add(1)
	defer s.active.Add(-1)
	start := time.Now()
	limit := start.Add(time.Duration(shape.Tokens)*shape.Every + grace)
	if err := c.SetWriteDeadline(limit); err != nil {
		return scratch, err
	}
	sc := scriptFor(shape)
	scratch = append(scratch, sc.role...)
	// One write per token even without a delay, as servers do that generate one
	// token at a time: what arrives together was brought together by the sockets.
	for i := range shape.Tokens {
		if shape.Every > 0 {
			time.Sleep(time.Until(start.Add(time.Duration(i) * shape.Every)))
		}
		at := i % Period
		event := sc.events[sc.off[at]:sc.off[at+1]]
		if i == 0 {
			event = append(scratch, event...)
		}
		if _, err := c.Write(event); err != nil {
			return scratch, err
		}
	}
	if shape.Tokens > 0 {
		scratch = scratch[:0] // the head has gone
	}
	scratch = sc.tail(scratch, shape)
	_, err := c.Write(scratch)
	return scratch, err
}
