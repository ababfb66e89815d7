package kserve

import (
	"bytes"
	"errors"
	"unicode/utf8"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"sluice/providers/kserve/oip"
)

// messageReader reads the messages of one stream. What comes for each token is read into
// the memory of the last one; all else, also what is malformed, is left to the generated
// code. An answer is valid until the next.
type messageReader struct {
	plain  bool // messages are ModelInferResponse, not ModelStreamInferResponse
	answer answer
	slots  []slot   // of the tensors, used again
	used   int      // of them
	raw    [][]byte // contents, in the memory of the message
	// head is the last message up to its raw contents, when nothing else is behind them: it
	// is the same for each token, and then its tensors are those of the last message.
	head  []byte
	final bool // as head says
}

// slot is a tensor with memory of its own.
type slot struct {
	tensor
	own []byte // its contents, when they came by type
}

func (r *messageReader) read(text []byte) (*answer, error) {
	if a, ok, err := r.common(text); ok {
		return a, err
	}
	return readAny(text, r.plain)
}

// readAny reads any message with the generated code.
func readAny(text []byte, plain bool) (*answer, error) {
	m := new(oip.ModelInferResponse)
	if plain {
		if err := proto.Unmarshal(text, m); err != nil {
			return nil, errNoMessage
		}
		return readMessage(m)
	}
	s := new(oip.ModelStreamInferResponse)
	if err := proto.Unmarshal(text, s); err != nil {
		return nil, errNoMessage
	}
	if told := s.GetErrorMessage(); told != "" {
		return nil, &errInStream{told}
	}
	return readMessage(s.GetInferResponse())
}

var errNoMessage = errors.New("it is not a message of its type")

// Numbers of fields, as oip has them.
const (
	inStreamResponse = 2 // of ModelStreamInferResponse

	inResponseModel      = 1 // of ModelInferResponse
	inResponseVersion    = 2
	inResponseID         = 3
	inResponseParameters = 4
	inResponseOutputs    = 5
	inResponseRaw        = 6

	inOutputName     = 1 // of InferOutputTensor
	inOutputDatatype = 2
	inOutputShape    = 3
	inOutputContents = 5

	inContentsBytes = 8 // of InferTensorContents

	inEntryKey   = 1 // of a map's entry
	inEntryValue = 2

	inParameterBool  = 1 // of InferParameter
	inParameterInt64 = 2
)

// Bounds of what is used again for the next message.
const (
	maxSlots   = 32
	maxOwnSize = 64 << 10
	maxHead    = 4 << 10
)

// common reads a message of the form in which tokens come: raw contents or strings, and
// parameters that are numbers. ok is false for all else.
func (r *messageReader) common(text []byte) (a *answer, ok bool, err error) {
	if !r.plain {
		var response []byte
		if !eachField(text, func(number protowire.Number, s []byte, _ uint64) bool {
			ok := number == inStreamResponse && s != nil && response == nil
			response = s
			return ok
		}) || response == nil {
			return nil, false, nil
		}
		text = response
	}
	if !r.again(text) && !r.whole(text) {
		return nil, false, nil
	}
	if err := r.fill(); err != nil {
		return nil, true, err
	}
	return &r.answer, true, nil
}

// again reads a message that differs from the last one in its raw contents only.
func (r *messageReader) again(text []byte) bool {
	rest, isSame := bytes.CutPrefix(text, r.head)
	if len(r.head) == 0 || !isSame {
		return false
	}
	r.raw = r.raw[:0]
	r.answer.final = r.final
	return eachField(rest, func(number protowire.Number, s []byte, _ uint64) bool {
		r.raw = append(r.raw, s)
		return number == inResponseRaw && s != nil && len(r.raw) <= maxSlots
	})
}

// whole reads a message from its begin.
func (r *messageReader) whole(text []byte) bool {
	r.used, r.raw, r.head, r.answer.final = 0, r.raw[:0], r.head[:0], false
	if !eachField(text, r.field) {
		return false
	}
	tail := 0 // bytes of the raw contents, as they are usually written
	for _, s := range r.raw {
		tail += protowire.SizeTag(inResponseRaw) + protowire.SizeBytes(len(s))
	}
	head := text[:max(0, len(text)-tail)]
	if len(r.raw) > 0 && len(head) <= maxHead && withoutRaw(head) {
		r.head, r.final = append(r.head, head...), r.answer.final
	}
	return true
}

// withoutRaw reports whether b is a message that has no raw contents.
func withoutRaw(b []byte) bool {
	return eachField(b, func(number protowire.Number, _ []byte, _ uint64) bool { return number != inResponseRaw })
}

// fill makes the tensors of the answer.
func (r *messageReader) fill() error {
	if err := fitRaw(len(r.raw), r.used); err != nil {
		return err
	}
	r.answer.tensors = r.answer.tensors[:0]
	for i := range r.used {
		t := &r.slots[i].tensor
		t.data = nil
		switch {
		case len(r.raw) > 0:
			t.data = r.raw[i]
		case t.datatype == bytesType:
			t.data = r.slots[i].own
		}
		if err := t.fit(); err != nil {
			return err
		}
		r.answer.tensors = append(r.answer.tensors, *t)
	}
	return nil
}

// field reads one of ModelInferResponse.
func (r *messageReader) field(number protowire.Number, s []byte, _ uint64) bool {
	switch {
	case s == nil:
		return false
	case number == inResponseOutputs:
		return r.output(s)
	case number == inResponseRaw:
		r.raw = append(r.raw, s)
		return len(r.raw) <= maxSlots
	case number == inResponseParameters:
		return r.parameter(s)
	default:
		return (number == inResponseModel || number == inResponseVersion || number == inResponseID) && utf8.Valid(s)
	}
}

// parameter reads an entry of the map: its name, and a truth value or a number.
func (r *messageReader) parameter(entry []byte) bool {
	var key, value []byte
	if !eachField(entry, func(number protowire.Number, s []byte, _ uint64) bool {
		switch {
		case s != nil && number == inEntryKey && key == nil && utf8.Valid(s):
			key = s
		case s != nil && number == inEntryValue && value == nil:
			value = s
		default:
			return false
		}
		return true
	}) || key == nil || value == nil {
		return false
	}
	truth, fields := false, 0
	if !eachField(value, func(number protowire.Number, s []byte, v uint64) bool {
		truth, fields = number == inParameterBool && v != 0, fields+1
		return s == nil && (number == inParameterBool || number == inParameterInt64)
	}) || fields != 1 {
		return false
	}
	if string(key) == markFinal {
		r.answer.final = truth
	}
	return true
}

// output reads one tensor, without what stands in the raw contents.
func (r *messageReader) output(text []byte) bool {
	if r.used == len(r.slots) {
		if r.used == maxSlots {
			return false
		}
		r.slots = append(r.slots, slot{})
	}
	t := &r.slots[r.used]
	r.used++
	name, datatype := "", ""
	t.shape, t.own = t.shape[:0], t.own[:0]
	if cap(t.own) > maxOwnSize {
		t.own = nil
	}
	ok := eachField(text, func(number protowire.Number, s []byte, v uint64) bool {
		switch {
		case number == inOutputName && s != nil && utf8.Valid(s):
			name = same(t.name, s)
		case number == inOutputDatatype && s != nil && utf8.Valid(s):
			datatype = same(t.datatype, s)
		case number == inOutputShape && s == nil:
			t.shape = append(t.shape, int64(v))
		case number == inOutputShape:
			return t.axes(s)
		case number == inOutputContents && s != nil:
			return eachField(s, t.element)
		default:
			return false
		}
		return true
	})
	t.name, t.datatype = name, datatype
	return ok
}

// axes reads a packed shape.
func (t *slot) axes(packed []byte) bool {
	for len(packed) > 0 {
		v, n := protowire.ConsumeVarint(packed)
		if n < 0 {
			return false
		}
		t.shape, packed = append(t.shape, int64(v)), packed[n:]
	}
	return true
}

// element reads a string of InferTensorContents.
func (t *slot) element(number protowire.Number, s []byte, _ uint64) bool {
	t.own = appendString(t.own, s)
	return number == inContentsBytes && s != nil
}

// same is s as a string, which is known before when it is the same each time.
func same(before string, s []byte) string {
	if before == string(s) {
		return before
	}
	return string(s)
}

// eachField calls take for the fields of a message, with the bytes of those that have a
// length and v for those that are a number. It returns false when take does, and for
// fields of other forms.
func eachField(b []byte, take func(number protowire.Number, s []byte, v uint64) bool) bool {
	for len(b) > 0 {
		number, kind, n := protowire.ConsumeTag(b)
		if n < 0 {
			return false
		}
		b = b[n:]
		var s []byte
		var v uint64
		switch kind {
		case protowire.BytesType:
			s, n = protowire.ConsumeBytes(b)
			if s == nil {
				s = []byte{}
			}
		case protowire.VarintType:
			v, n = protowire.ConsumeVarint(b)
		default:
			return false
		}
		if n < 0 || !take(number, s, v) {
			return false
		}
		b = b[n:]
	}
	return true
}
