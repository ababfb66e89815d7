package mii

import (
	"errors"
	"fmt"
	"io"
	"unicode/utf8"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"sluice/providers/kit/rpc"
	"sluice/providers/mii/wire"
)

// messages are what one stream brings.
type messages struct {
	g       *overGRPC
	from    *rpc.Reader
	replies []reply
	err     error // behind the last of replies
	current wire.MultiGenerationReply
	v01     wire.GenerationReply
}

// next waits for what comes next: one reply, or those that have come together. They are
// valid until the next call. io.EOF says that the server has ended the stream, and calls
// it a success; other errors are those of a transport.
func (m *messages) next() ([]reply, error) {
	if m.err != nil {
		return nil, m.err
	}
	batch, err := m.from.Next()
	switch {
	case errors.Is(err, io.EOF):
		return nil, io.EOF
	case err != nil:
		return nil, m.g.fault(err)
	}
	m.replies = m.replies[:0]
	for _, text := range batch {
		r, err := m.read(text)
		if err != nil {
			m.err = err
			break
		}
		m.replies = append(m.replies, r)
	}
	if len(m.replies) == 0 {
		return nil, m.err
	}
	return m.replies, nil
}

// close ends the call.
func (m *messages) close() { m.from.Close() }

// read reads one message, which is about the one prompt of a stream.
func (m *messages) read(text []byte) (reply, error) {
	if m.g.Generation != V01 {
		if s, ok := readSingle(text); ok {
			return m.g.told(string(s.text), word(s.finish), s.prompt, s.generated)
		}
	}
	replies, err := m.readAny(text)
	if err == nil && len(replies) != 1 {
		err = m.g.strange(fmt.Sprintf("a message with %d answers in a stream of one", len(replies)))
	}
	if err != nil {
		return reply{}, err
	}
	return replies[0], nil
}

func (m *messages) readAny(text []byte) ([]reply, error) {
	var into proto.Message = &m.current
	if m.g.Generation == V01 {
		into = &m.v01
	}
	if proto.Unmarshal(text, into) != nil {
		return nil, m.g.strange("one that cannot be read as such")
	}
	if m.g.Generation == V01 {
		return m.g.readV01(&m.v01)
	}
	return m.g.readCurrent(&m.current)
}

// single is a SingleGenerationReply in the memory of its message.
type single struct {
	text, finish      []byte
	prompt, generated int64
}

// Numbers of fields, as wire has them.
const (
	fieldReplies   = 1
	fieldText      = 1
	fieldFinish    = 2
	fieldPrompt    = 3
	fieldGenerated = 4
	fieldTime      = 5
	fieldModelTime = 6
)

// readSingle reads a MultiGenerationReply with one answer and nothing unknown in it, which
// is what comes for each token, in a tenth of the time that the generated code takes. ok
// is false for all else, also for what is malformed: the generated code judges it.
func readSingle(text []byte) (s single, ok bool) {
	number, kind, n := protowire.ConsumeTag(text)
	if n < 0 || number != fieldReplies || kind != protowire.BytesType {
		return s, false
	}
	b, m := protowire.ConsumeBytes(text[n:])
	if m < 0 || n+m != len(text) {
		return s, false
	}
	for len(b) > 0 {
		number, kind, n := protowire.ConsumeTag(b)
		if n < 0 {
			return s, false
		}
		b = b[n:]
		if n = s.field(number, kind, b); n < 0 {
			return s, false
		}
		b = b[n:]
	}
	return s, true
}

// field reads one field and returns its size, or less than 0 for what is not expected.
func (s *single) field(number protowire.Number, kind protowire.Type, b []byte) (n int) {
	switch {
	case number == fieldText && kind == protowire.BytesType:
		s.text, n = characters(b)
	case number == fieldFinish && kind == protowire.BytesType:
		s.finish, n = characters(b)
	case number == fieldPrompt && kind == protowire.VarintType:
		var v uint64
		v, n = protowire.ConsumeVarint(b)
		s.prompt = int64(v)
	case number == fieldGenerated && kind == protowire.VarintType:
		var v uint64
		v, n = protowire.ConsumeVarint(b)
		s.generated = int64(v)
	case (number == fieldTime || number == fieldModelTime) && kind == protowire.Fixed32Type:
		_, n = protowire.ConsumeFixed32(b)
	default:
		n = -1
	}
	return n
}

// characters reads a string, which must be one.
func characters(b []byte) (s []byte, n int) {
	if s, n = protowire.ConsumeBytes(b); !utf8.Valid(s) {
		n = -1
	}
	return s, n
}

// word is a finish_reason; the one of almost all messages takes no memory.
func word(finish []byte) string {
	if string(finish) == "none" {
		return "none"
	}
	return string(finish)
}
