package dialect

import (
	"bytes"
	"errors"
	"strconv"
	"strings"

	"sluice/streaming"
	"sluice/streaming/jsonscan"
)

// responses passes on the events of the Responses API and speaks in their place
// when the upstream is silent or fails.
type responses struct {
	framing streaming.Framing
	opts    Options
	named   bool // the wire has a place for event names
	seq     int64
	begun   bool
	over    bool // a terminal event has gone out
	failed  bool // it was an error
	ended   bool
}

// NewResponses encodes the events of POST /responses, which must arrive in that
// dialect: typed content is an error. It needs no terminator.
func NewResponses(f streaming.Framing, o Options) streaming.Encoder {
	return &responses{framing: f, opts: o, named: strings.HasPrefix(f.Before, "data:"), seq: -1}
}

// Append frames a payload of this dialect with its event name.
func (s *responses) Append(dst []byte, ev *streaming.Event) ([]byte, error) {
	if s.ended {
		return dst, nil
	}
	if ev.Dialect != streaming.Responses || len(ev.Raw) == 0 || ev.Kind == streaming.Whole || ev.Kind == streaming.Bytes {
		if ev.Kind.Commits() {
			return dst, errors.New("a stream of the Responses API got content that is no event of it")
		}
		return dst, nil
	}
	s.note(ev)
	dst = s.open(dst, ev.Name)
	dst = appendLine(dst, ev.Raw)
	return append(dst, s.framing.After...), nil
}

func (s *responses) open(dst []byte, name string) []byte {
	if s.named && name != "" {
		dst = append(dst, "event: "...)
		dst = append(dst, name...)
		dst = append(dst, '\n')
	}
	return append(dst, s.framing.Before...)
}

func (s *responses) note(ev *streaming.Event) {
	s.begun = true
	if n, ok := sequence(ev.Raw); ok {
		s.seq = n
	} else {
		s.seq++
	}
	name := ev.Name
	if name == "" {
		name = eventType(ev.Raw)
	}
	switch name {
	case "error":
		s.over, s.failed = true, true
	case "response.failed": // OpenAI's own terminal event for a failure; nothing follows it there either
		s.over, s.failed = true, true
	case "response.completed", "response.incomplete":
		s.over = true
	}
}

var sequenceKey = []byte(`"sequence_number"`)

// sequence finds the sequence number by its key. Inside a string the key's quotes
// are escaped, so it cannot be taken for one.
func sequence(raw []byte) (int64, bool) {
	for {
		at := bytes.Index(raw, sequenceKey)
		if at < 0 {
			return 0, false
		}
		raw = raw[at+len(sequenceKey):]
		rest := bytes.TrimLeft(raw, " \t\r\n")
		if len(rest) == 0 || rest[0] != ':' {
			continue
		}
		rest = bytes.TrimLeft(rest[1:], " \t\r\n")
		var n int64
		digits := 0
		for digits < len(rest) && digits < 18 && rest[digits]-'0' <= 9 {
			n = n*10 + int64(rest[digits]-'0')
			digits++
		}
		if digits > 0 {
			return n, true
		}
	}
}

// eventType reads the type of an event that came without a name.
func eventType(raw []byte) string {
	c := jsonscan.Cursor{B: raw}
	for c.Object(); c.Key(); {
		if string(c.Name) != "type" {
			c.Skip()
			continue
		}
		name, _ := jsonscan.Unquote(c.Skip().Of(raw))
		return name
	}
	return ""
}

// AppendHeartbeat adds a comment before the first event and then OpenAI's own
// keepalive event, which repeats the last sequence number.
func (s *responses) AppendHeartbeat(dst []byte) []byte {
	switch {
	case s.ended || s.over:
		return dst
	case !s.begun:
		return append(dst, s.framing.Comment...)
	}
	dst = s.open(dst, "keepalive")
	dst = append(dst, `{"type":"keepalive","sequence_number":`...)
	dst = strconv.AppendInt(dst, s.seq, 10)
	dst = append(dst, '}')
	return append(dst, s.framing.After...)
}

// AppendEnd adds nothing to a true end. An error has its members twice, flat and
// nested, for either shape alone is overlooked by some clients; it is left out when
// the upstream has sent an error event itself.
func (s *responses) AppendEnd(dst []byte, err error) []byte {
	if s.ended {
		return dst
	}
	s.ended = true
	if err == nil || s.failed {
		return dst
	}
	inner := s.opts.appendError(nil, err)
	dst = s.open(dst, "error")
	dst = append(dst, `{"type":"error","sequence_number":`...)
	dst = strconv.AppendInt(dst, s.seq+1, 10)
	for _, name := range [...]string{"code", "message", "param"} {
		dst = append(dst, `,"`...)
		dst = append(dst, name...)
		dst = append(dst, `":`...)
		dst = append(dst, member(inner, name)...)
	}
	dst = append(dst, `,"error":`...)
	dst = append(dst, inner...)
	dst = append(dst, '}')
	return append(dst, s.framing.After...)
}

// member returns the JSON text of one member of an object, or null.
func member(object []byte, name string) []byte {
	c := jsonscan.Cursor{B: object}
	for c.Object(); c.Key(); {
		found := string(c.Name) == name
		if value := c.Skip().Of(object); found && len(value) > 0 {
			return value
		}
	}
	return []byte("null")
}
