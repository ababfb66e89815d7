// Package providertest knows what every adapter must withstand, and says so in one
// suite: transcripts whole, in pieces and cut, refusals, faults of the server, callers
// who leave. Only tests import it.
package providertest

import (
	"io"
	"net/http"
	"testing"
	"time"

	"sluice/providers"
	"sluice/streaming"
)

// Limits that New and Play must give the adapter.
const (
	// MaxEvent bounds one event of a stream, in bytes.
	MaxEvent = 1 << 20
	// MaxAnswer bounds one answer that is held whole, in bytes.
	MaxAnswer = 4 << 20
)

// Model is the upstream's name of the model that New's provider asks for and callers name.
const Model = "m"

// Suite describes an adapter. New, Ext and Type are required.
type Suite struct {
	// New returns a Provider that asks the server at baseURL (scheme and host, no path) for Model.
	New func(t testing.TB, baseURL string) providers.Provider
	// Play is the adapter's reader alone, over a body that it reads as its upstream's.
	// With it every split and every cut is exact; without it transcripts come over a
	// connection.
	Play func(req *providers.Request, p *streaming.Progress, body io.Reader) streaming.Stream
	// Serve starts the server of a protocol that is not a body over HTTP, until the test
	// ends. Nil serves HTTP.
	Serve func(t testing.TB, s *Script) (baseURL string)

	// Ext is the extension of transcripts, such as ".sse", in the folders of Dir, which is
	// "testdata" when it is "".
	Ext, Dir string
	// Type is the Content-Type of a streamed answer.
	Type string
	// Lines says that transcripts are lines of text, which may also end in CRLF.
	Lines bool
	// Messages says that each line of a transcript is one message, which no server
	// sends in pieces (gRPC): cuts come between lines only, and Serve sends them so.
	Messages bool

	// Large returns a transcript whose one event has at least so many bytes. Nil: the
	// protocol has none.
	Large func(size int) []byte
	// Refusals are the error answers that the protocol documents.
	Refusals []Refusal
	// Lacks names demands on the transcripts that the protocol cannot meet: see Demands.
	Lacks []string
	// AtOnce says that content comes only with the whole answer, also to a caller who
	// asked for a stream.
	AtOnce bool
	// NoWhole says that the adapter always streams, also when its caller does not.
	NoWhole bool
}

// Refusal is an answer of the server that is an error from its first byte.
type Refusal struct {
	Name   string
	Status int         // of HTTP; what Serve makes of it otherwise
	Type   string      // Content-Type; "" is application/json
	Header http.Header // usually nil
	Body   string
	// Want is compared in Kind, and in each other field that is not zero. Message may be a part.
	Want providers.Error
}

// Script is what a server does with one call.
type Script struct {
	Status int
	Type   string
	Header http.Header
	Body   []byte
	// Piecewise sends the body in as many pieces as it has bytes, or messages.
	Piecewise bool
	// Stop is where the server waits until its caller has gone.
	Stop Stop
	// Break ends the connection behind the body, instead of the answer.
	Break bool
	// Stopped is closed when the server waits, or cannot send any more; Gone when it knows
	// that its caller has left.
	Stopped, Gone chan struct{}
	// Asked gets the request, its body read. Nil: nobody looks.
	Asked func(r *http.Request, body []byte)
}

// Stop is a place in an answer.
type Stop uint8

const (
	// Nowhere lets the answer run to its end.
	Nowhere Stop = iota
	// BeforeHeaders is when the request has been read.
	BeforeHeaders
	// BehindHeaders is before the first byte of the body.
	BehindHeaders
	// BehindBody is when all of Body has been sent.
	BehindBody
)

// Soon is within what a server must know that its caller has gone, and what must
// happen at all happens.
const Soon = time.Second

// Run runs the suite.
func (s Suite) Run(t *testing.T) {
	if s.Dir == "" {
		s.Dir = "testdata"
	}
	t.Run("transcripts", s.transcripts)
	t.Run("cuts", s.cuts)
	t.Run("leaving", s.leaving)
	t.Run("large events", s.large)
	t.Run("requests", s.requests)
	t.Run("capabilities", s.capabilities)
	t.Run("refusals", s.refusals)
	t.Run("wrong servers", s.wrongServers)
	t.Run("cancel", s.cancel)
}
