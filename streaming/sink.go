package streaming

// Encoder writes one answer in one client dialect. It appends complete frames and
// keeps no reference to an event after the call. It is used by one goroutine at a
// time.
type Encoder interface {
	// Append adds the frames for one event; adding nothing is fine.
	Append(dst []byte, ev *Event) ([]byte, error)
	// AppendHeartbeat adds the heartbeat that is legal after the events seen so far, or nothing.
	AppendHeartbeat(dst []byte) []byte
	// AppendEnd adds what ends the answer: the terminator when err is nil, else the error in the dialect's form.
	AppendEnd(dst []byte, err error) []byte
}

// Sink is where the events of one answer go. The relay serialises all calls.
type Sink interface {
	// Send writes a batch and flushes it once; a client that does not take it in time is ErrSlow.
	Send(batch []Event) error
	// Heartbeat commits the status if it is still held and writes a sign of life where
	// the form has one; sent tells whether it had.
	Heartbeat() (sent bool, err error)
	// End finishes the answer, truthfully. When nothing has been sent it writes
	// nothing for an error and returns it: a status code is still possible.
	End(err error) error
}

// Framing is how a payload becomes bytes on a client's wire.
type Framing struct {
	Before, After string // around each payload
	Comment       string // a sign of life before the first payload; "" where the wire has its own
	Done          string // after the last payload of a complete answer
}

// SSEFraming is the framing of text/event-stream as OpenAI's clients read it: one data
// line, a blank line, no id and no retry. The comment ends in one newline only,
// since a blank line after it dispatches an empty event in several SDKs.
var SSEFraming = Framing{Before: "data: ", After: "\n\n", Comment: ": keep-alive\n", Done: "data: [DONE]\n\n"}

// AppendFrame adds one framed payload.
func (f Framing) AppendFrame(dst, payload []byte) []byte {
	dst = append(dst, f.Before...)
	dst = append(dst, payload...)
	return append(dst, f.After...)
}
