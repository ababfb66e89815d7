package kserve

import (
	"encoding/binary"
	"fmt"
	"math"

	"sluice/providers/kit/pixels"
	"sluice/streaming"
)

// tensor is one tensor of an answer. data is little-endian, row after row; elements of
// BYTES have their length, four bytes, before them.
type tensor struct {
	name, datatype string
	shape          []int64
	data           []byte
}

// input is one tensor of a call. fill writes its data, which has size bytes.
type input struct {
	name, datatype string
	shape          []int64
	size           int
	fill           func(dst []byte) error
}

// call is one question to a model.
type call struct {
	model, version string
	inputs         []input
	outputs        []output
	progress       *streaming.Progress
}

// output is a tensor that is wanted. A server with the classification extension turns
// it into its best classes when classes is not 0.
type output struct {
	name    string
	classes int
}

// answer is what came. final is set on the last one of a stream.
type answer struct {
	tensors []tensor
	final   bool
	more    bool // others have come together with it: it waits for them
}

// find returns a tensor by name, nil when it did not come.
func (a *answer) find(name string) *tensor {
	for i := range a.tensors {
		if a.tensors[i].name == name {
			return &a.tensors[i]
		}
	}
	return nil
}

// bytesType is the datatype of strings, whose elements have no fixed size.
const bytesType = "BYTES"

// elementSizes are the datatypes of the protocol, and Triton's BF16.
var elementSizes = map[string]int{
	"BOOL": 1, "UINT8": 1, "UINT16": 2, "UINT32": 4, "UINT64": 8, "INT8": 1, "INT16": 2, "INT32": 4, "INT64": 8,
	"FP16": 2, "FP32": 4, "FP64": 8, "BF16": 2,
}

// maxElements bounds a tensor, so that the product of its shape cannot overflow.
const maxElements = 1 << 40

// elements is the product of a shape.
func elements(shape []int64) (int64, error) {
	n := int64(1)
	for _, d := range shape {
		if d < 0 || d > maxElements {
			return 0, fmt.Errorf("the shape %v is not possible", shape)
		}
		if n *= d; n > maxElements {
			return 0, fmt.Errorf("the shape %v is too large", shape)
		}
	}
	return n, nil
}

// check holds the data of a tensor against its shape and datatype.
func (t *tensor) check() error {
	n, err := elements(t.shape)
	if err != nil {
		return err
	}
	if t.datatype == bytesType {
		got, err := countStrings(t.data)
		if err == nil && got != n {
			err = fmt.Errorf("it has %d strings, and its shape %v wants %d", got, t.shape, n)
		}
		return err
	}
	size, known := elementSizes[t.datatype]
	switch {
	case !known:
		return fmt.Errorf("its datatype %.20q is not known", t.datatype)
	case int64(len(t.data)) != n*int64(size):
		return fmt.Errorf("it has %d bytes, and its shape %v of %s wants %d", len(t.data), t.shape, t.datatype, n*int64(size))
	}
	return nil
}

func countStrings(data []byte) (n int64, err error) {
	for len(data) > 0 {
		if _, data, err = cutString(data); err != nil {
			return 0, err
		}
		n++
	}
	return n, nil
}

// cutString takes the first string of BYTES.
func cutString(data []byte) (s, rest []byte, err error) {
	if len(data) < 4 {
		return nil, nil, fmt.Errorf("its strings are cut short")
	}
	n := int64(binary.LittleEndian.Uint32(data))
	if n > int64(len(data)-4) {
		return nil, nil, fmt.Errorf("its strings are cut short")
	}
	return data[4 : 4+n], data[4+n:], nil
}

// appendString adds one element of BYTES.
func appendString[T string | []byte](dst []byte, s T) []byte {
	dst = binary.LittleEndian.AppendUint32(dst, uint32(len(s)))
	return append(dst, s...)
}

// strings returns the elements of BYTES; they share the tensor's memory.
func (t *tensor) strings() [][]byte {
	var all [][]byte
	for rest := t.data; len(rest) > 0; {
		s, after, err := cutString(rest)
		if err != nil {
			return all
		}
		all, rest = append(all, s), after
	}
	return all
}

// numeric reports whether the elements are numbers or truth values.
func (t *tensor) numeric() bool { return elementSizes[t.datatype] > 0 }

// len is the number of elements of a numeric tensor that passed check.
func (t *tensor) len() int { return len(t.data) / elementSizes[t.datatype] }

// at returns one element of a numeric tensor.
func (t *tensor) at(i int) float64 {
	b := t.data[i*elementSizes[t.datatype]:]
	switch t.datatype {
	case "BOOL", "UINT8":
		return float64(b[0])
	case "INT8":
		return float64(int8(b[0]))
	case "UINT16":
		return float64(binary.LittleEndian.Uint16(b))
	case "INT16":
		return float64(int16(binary.LittleEndian.Uint16(b)))
	case "UINT32":
		return float64(binary.LittleEndian.Uint32(b))
	case "INT32":
		return float64(int32(binary.LittleEndian.Uint32(b)))
	case "UINT64":
		return float64(binary.LittleEndian.Uint64(b))
	case "INT64":
		return float64(int64(binary.LittleEndian.Uint64(b)))
	case "FP16":
		return float64(pixels.FromHalf(binary.LittleEndian.Uint16(b)))
	case "BF16":
		return float64(pixels.FromBrain(binary.LittleEndian.Uint16(b)))
	case "FP64":
		return math.Float64frombits(binary.LittleEndian.Uint64(b))
	default:
		return float64(math.Float32frombits(binary.LittleEndian.Uint32(b)))
	}
}

// put writes one element of a numeric datatype.
func put(dst []byte, datatype string, v float64) []byte {
	le := binary.LittleEndian
	switch datatype {
	case "BOOL":
		if v != 0 {
			return append(dst, 1)
		}
		return append(dst, 0)
	case "UINT8", "INT8":
		return append(dst, byte(int64(v)))
	case "UINT16", "INT16":
		return le.AppendUint16(dst, uint16(int64(v)))
	case "UINT32", "INT32":
		return le.AppendUint32(dst, uint32(int64(v)))
	case "UINT64":
		return le.AppendUint64(dst, uint64(v))
	case "INT64":
		return le.AppendUint64(dst, uint64(int64(v)))
	case "FP16":
		return le.AppendUint16(dst, pixels.Half(float32(v)))
	case "BF16":
		return le.AppendUint16(dst, pixels.Brain(float32(v)))
	case "FP64":
		return le.AppendUint64(dst, math.Float64bits(v))
	default:
		return le.AppendUint32(dst, math.Float32bits(float32(v)))
	}
}

// item is the part of a tensor that belongs to one of n things that were asked about
// together. A first axis of one is dropped also when there is only one.
func (t *tensor) item(i, n int) (tensor, error) {
	if len(t.shape) == 0 || n == 1 && (len(t.shape) == 1 || t.shape[0] != 1) {
		return *t, nil
	}
	if t.shape[0] != int64(n) {
		return tensor{}, fmt.Errorf("its shape %v has not one part for each of %d", t.shape, n)
	}
	part := tensor{name: t.name, datatype: t.datatype, shape: t.shape[1:]}
	if t.datatype != bytesType {
		size := len(t.data) / n
		part.data = t.data[i*size:][:size]
		return part, nil
	}
	all := t.strings()
	each := len(all) / n
	for _, s := range all[i*each:][:each] {
		part.data = appendString(part.data, s)
	}
	return part, nil
}
