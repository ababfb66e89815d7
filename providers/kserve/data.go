package kserve

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"math"
	"strconv"

	"sluice/streaming/jsonscan"
)

// maxNesting bounds the arrays in arrays of a tensor's data.
const maxNesting = 32

// readData turns the data of a tensor in JSON, flat or nested, into bytes.
func readData(datatype string, text []byte) ([]byte, error) {
	if datatype != bytesType && elementSizes[datatype] == 0 {
		return nil, fmt.Errorf("its datatype %.20q is not known", datatype)
	}
	d := dataReader{datatype: datatype, c: jsonscan.Cursor{B: text, Limit: maxNesting}}
	d.value()
	if d.err == nil && !d.c.End() {
		d.err = fmt.Errorf("its data is not valid JSON, or nested deeper than %d", maxNesting)
	}
	return d.out, d.err
}

type dataReader struct {
	datatype string
	c        jsonscan.Cursor
	out      []byte
	err      error
}

func (d *dataReader) value() {
	if d.c.Peek() == '[' {
		for d.c.Array(); d.err == nil && d.c.Elem(); {
			d.value()
		}
		return
	}
	at := d.c.Skip()
	if v := at.Of(d.c.B); d.err == nil && !d.c.Bad {
		d.out, d.err = appendElement(d.out, d.datatype, v)
	}
}

// appendElement adds one element from its JSON text.
func appendElement(dst []byte, datatype string, v []byte) ([]byte, error) {
	text := string(v)
	switch datatype {
	case bytesType:
		s, ok := jsonscan.Unquote(v)
		if !ok {
			return dst, fmt.Errorf("an element of BYTES must be a string, not %.40s", text)
		}
		return appendString(dst, s), nil
	case "INT64":
		if n, err := strconv.ParseInt(text, 10, 64); err == nil {
			return binary.LittleEndian.AppendUint64(dst, uint64(n)), nil
		}
	case "UINT64":
		if n, err := strconv.ParseUint(text, 10, 64); err == nil {
			return binary.LittleEndian.AppendUint64(dst, n), nil
		}
	}
	switch text {
	case "true":
		return put(dst, datatype, 1), nil
	case "false":
		return put(dst, datatype, 0), nil
	case "null": // what servers write for numbers that JSON has none for
		if _, isWhole := wholes[datatype]; !isWhole {
			return put(dst, datatype, math.NaN()), nil
		}
	}
	f, err := strconv.ParseFloat(text, 64)
	whole, isWhole := wholes[datatype]
	if err != nil || isWhole && (f != math.Trunc(f) || f < whole.low || f > whole.high) {
		return dst, fmt.Errorf("%.40s is no element of a tensor of %s", text, datatype)
	}
	return put(dst, datatype, f), nil
}

// wholes are the datatypes without fractions that a float64 holds exactly.
var wholes = map[string]struct{ low, high float64 }{
	"BOOL": {0, 1}, "UINT8": {0, math.MaxUint8}, "UINT16": {0, math.MaxUint16}, "UINT32": {0, math.MaxUint32},
	"INT8": {math.MinInt8, math.MaxInt8}, "INT16": {math.MinInt16, math.MaxInt16}, "INT32": {math.MinInt32, math.MaxInt32},
	"INT64": {0, -1}, "UINT64": {0, -1}, // read above, without rounding
}

// appendData adds the elements of a tensor as a flat JSON array.
func appendData(dst []byte, t *tensor) []byte {
	dst = append(dst, '[')
	if t.datatype == bytesType {
		for i, s := range t.strings() {
			if i > 0 {
				dst = append(dst, ',')
			}
			dst = jsonscan.AppendQuote(dst, string(s))
		}
		return append(dst, ']')
	}
	for i := range t.len() {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = t.appendElement(dst, i)
	}
	return append(dst, ']')
}

func (t *tensor) appendElement(dst []byte, i int) []byte {
	switch t.datatype {
	case "BOOL":
		return strconv.AppendBool(dst, t.at(i) != 0)
	case "INT64":
		return strconv.AppendInt(dst, int64(binary.LittleEndian.Uint64(t.data[8*i:])), 10)
	case "UINT64":
		return strconv.AppendUint(dst, binary.LittleEndian.Uint64(t.data[8*i:]), 10)
	case "FP64":
		return appendNumber(dst, t.at(i), 64)
	case "FP32", "FP16", "BF16":
		return appendNumber(dst, t.at(i), 32)
	default: // whole numbers that a float64 holds exactly
		return strconv.AppendInt(dst, int64(t.at(i)), 10)
	}
}

// appendNumber adds a number, or null for what JSON has no number for.
func appendNumber(dst []byte, v float64, bits int) []byte {
	if math.IsNaN(v) || math.IsInf(v, 0) {
		return append(dst, "null"...)
	}
	return strconv.AppendFloat(dst, v, 'g', -1, bits)
}

// appendShape adds a shape as a JSON array.
func appendShape(dst []byte, shape []int64) []byte {
	dst = append(dst, '[')
	for i, d := range shape {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = strconv.AppendInt(dst, d, 10)
	}
	return append(dst, ']')
}

// appendTensor adds a tensor as the protocol writes it in JSON.
func appendTensor(dst []byte, t *tensor) []byte {
	dst = append(dst, `{"name":`...)
	dst = jsonscan.AppendQuote(dst, t.name)
	dst = append(dst, `,"datatype":"`...)
	dst = append(dst, t.datatype...)
	dst = append(dst, `","shape":`...)
	dst = appendShape(dst, t.shape)
	dst = append(dst, `,"data":`...)
	dst = appendData(dst, t)
	return append(dst, '}')
}

// jsonTensor is a tensor as JSON holds it, its data unread.
type jsonTensor struct {
	Name       string                     `json:"name"`
	Datatype   string                     `json:"datatype"`
	Shape      []int64                    `json:"shape"`
	Parameters map[string]json.RawMessage `json:"parameters,omitempty"`
	Data       json.RawMessage            `json:"data,omitempty"`
}

// binarySize is how many bytes behind the JSON belong to the tensor; ok is false when
// its data stands in the JSON.
func (t *jsonTensor) binarySize() (n int64, ok bool, err error) {
	v, ok := t.Parameters["binary_data_size"]
	if !ok {
		return 0, false, nil
	}
	n, err = strconv.ParseInt(string(v), 10, 64)
	if err != nil || n < 0 {
		return 0, true, fmt.Errorf("the binary_data_size of tensor %.40q is no size", t.Name)
	}
	return n, true, nil
}

// read takes the tensor's data from the JSON, or from the front of rest, which it
// returns without it.
func (t *jsonTensor) read(rest []byte) (tensor, []byte, error) {
	out := tensor{name: t.Name, datatype: t.Datatype, shape: t.Shape}
	size, binary, err := t.binarySize()
	switch {
	case err != nil:
		return out, rest, err
	case binary && size > int64(len(rest)):
		return out, rest, fmt.Errorf("tensor %.40q is cut short", t.Name)
	case binary:
		out.data, rest = rest[:size], rest[size:]
	default:
		if out.data, err = readData(t.Datatype, t.Data); err != nil {
			return out, rest, fmt.Errorf("tensor %.40q: %w", t.Name, err)
		}
	}
	if err := out.check(); err != nil {
		return out, rest, fmt.Errorf("tensor %.40q: %w", t.Name, err)
	}
	return out, rest, nil
}
