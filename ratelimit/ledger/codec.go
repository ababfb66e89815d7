package ledger

import (
	"encoding/binary"
	"errors"
	"slices"
	"strings"
	"time"
	"unicode/utf8"
)

// The encoded row is read by post.lua too, so its head is of fixed size:
//
//	version (1 byte) · ten amounts (int64, little endian) · length of the name of its sum ·
//	length of the part of that name that holds key, user and team (uint16 each) ·
//	the name: key, user, team, model, target · the other fields
//
// Texts are a uvarint of their length and their bytes, integers are varints. A later
// version may add fields at the end: readers ignore what they do not know.
const (
	rowVersion  = 1
	amountCount = 10
	amountBytes = 8 * amountCount
	rowHead     = 1 + amountBytes + 4
	usualRow    = 384 // bytes that most rows fit into
)

var errRow = errors.New("not an encoded row")

// maxAmount is the largest integer that is exact in Lua too.
const maxAmount = 1<<53 - 1

// Encode appends the row to dst. Names are cut at 256 bytes. Posted is not part of it.
func Encode(dst []byte, r *Row) []byte {
	dst = append(slices.Grow(dst, usualRow), rowVersion)
	dst = r.amounts().append(dst)
	dst = append(dst, 0, 0, 0, 0)
	start := len(dst)
	dst = appendText(dst, r.Key)
	dst = appendText(dst, r.User)
	dst = appendText(dst, r.Team)
	short := len(dst) - start
	dst = appendText(dst, r.Model)
	dst = appendText(dst, r.Target)
	binary.LittleEndian.PutUint16(dst[start-4:], uint16(len(dst)-start))
	binary.LittleEndian.PutUint16(dst[start-2:], uint16(short))
	dst = appendText(dst, r.ID)
	dst = appendText(dst, r.Org)
	dst = appendText(dst, r.Op)
	dst = appendText(dst, r.Transport)
	dst = appendText(dst, r.End)
	dst = binary.AppendVarint(dst, r.Start.UnixMicro())
	dst = binary.AppendVarint(dst, int64(r.TTFT))
	dst = binary.AppendVarint(dst, int64(r.Total))
	dst = binary.AppendVarint(dst, r.Reserved)
	return binary.AppendVarint(dst, r.Attempts)
}

// decode reads what Encode wrote. The row shares no memory with data.
func decode(data []byte) (Row, error) {
	var r Row
	if len(data) < rowHead || data[0] != rowVersion {
		return r, errRow
	}
	var a amounts
	a.read(data[1:])
	in := reader{data: data[rowHead:]}
	for _, s := range []*string{&r.Key, &r.User, &r.Team, &r.Model, &r.Target, &r.ID, &r.Org, &r.Op, &r.Transport, &r.End} {
		*s = in.text()
	}
	r.Start = time.UnixMicro(in.int()).UTC()
	r.TTFT, r.Total = time.Duration(in.int()), time.Duration(in.int())
	r.Reserved, r.Attempts = in.int(), in.int()
	if in.failed {
		return Row{}, errRow
	}
	r.Requests, r.Input, r.Cached, r.Output, r.Reasoning = a[1], a[2], a[3], a[4], a[5]
	r.Frames, r.Money, r.Estimated = a[6], a[7], a[8] != 0
	return r, nil
}

// head is what counting needs of an encoded row: parts of it.
type head struct {
	name  []byte // key, user, team, model, target
	short int    // bytes of name that hold key, user and team
	id    []byte
	org   []byte // with its length
}

func readHead(data []byte) (head, error) {
	if len(data) < rowHead || data[0] != rowVersion {
		return head{}, errRow
	}
	size := int(binary.LittleEndian.Uint16(data[1+amountBytes:]))
	h := head{short: int(binary.LittleEndian.Uint16(data[rowHead-2:]))}
	if size > len(data)-rowHead || h.short > size {
		return head{}, errRow
	}
	h.name = data[rowHead : rowHead+size]
	in := reader{data: data[rowHead+size:]}
	h.id = in.bytes()
	rest := in.data
	in.bytes()
	h.org = rest[:len(rest)-len(in.data)]
	if in.failed {
		return head{}, errRow
	}
	return h, nil
}

// amounts are what sums add up: calls, requests, input, cached, output, reasoning, frames,
// money, estimated calls, microseconds.
type amounts [amountCount]int64

func (r *Row) amounts() amounts {
	a := amounts{1, r.Requests, r.Input, r.Cached, r.Output, r.Reasoning, r.Frames, r.Money, 0, r.Total.Microseconds()}
	if r.Estimated {
		a[8] = 1
	}
	for i, n := range a {
		a[i] = min(max(n, -maxAmount), maxAmount)
	}
	return a
}

func (a *amounts) add(b *amounts) {
	for i, n := range b {
		a[i] += n
	}
}

func (a amounts) append(dst []byte) []byte {
	for _, n := range a {
		dst = binary.LittleEndian.AppendUint64(dst, uint64(n))
	}
	return dst
}

// read takes the amounts from the first amountBytes of data.
func (a *amounts) read(data []byte) {
	for i := range a {
		a[i] = int64(binary.LittleEndian.Uint64(data[8*i:]))
	}
}

// name says what a sum is of.
type name struct{ key, user, team, model, target string }

func (r *Row) name() name {
	return name{cut(r.Key), cut(r.User), cut(r.Team), cut(r.Model), cut(r.Target)}
}

func (n name) append(dst []byte) []byte {
	return appendTexts(dst, n.key, n.user, n.team, n.model, n.target)
}

// decodeName reads the field of a sum. Models and targets that were summed together, and
// whatever was beyond the bound on names, are told as "(other)".
func decodeName(data string) (name, error) {
	n := name{model: sumOther, target: sumOther}
	if data == "" {
		n.key, n.user, n.team = sumOther, sumOther, sumOther
		return n, nil
	}
	in := reader{data: []byte(data)}
	n.key, n.user, n.team = in.text(), in.text(), in.text()
	if len(in.data) > 0 {
		n.model, n.target = in.text(), in.text()
	}
	if in.failed {
		return name{}, errRow
	}
	return n, nil
}

// cut bounds a name, at the end of a character.
func cut(s string) string {
	if len(s) <= maxName {
		return s
	}
	end := maxName
	for end > maxName-utf8.UTFMax && !utf8.RuneStart(s[end]) {
		end--
	}
	return strings.Clone(s[:end])
}

func appendTexts(dst []byte, texts ...string) []byte {
	for _, s := range texts {
		dst = appendText(dst, s)
	}
	return dst
}

func appendText(dst []byte, s string) []byte {
	if len(s) < 1<<7 { // most are, and their lengths are one byte
		return append(append(dst, byte(len(s))), s...)
	}
	s = cut(s)
	return append(binary.AppendUvarint(dst, uint64(len(s))), s...)
}

// reader takes fields off its data until one is not there.
type reader struct {
	data   []byte
	failed bool
}

func (r *reader) text() string { return string(r.bytes()) }

// bytes is part of the reader's data.
func (r *reader) bytes() []byte {
	n, size := binary.Uvarint(r.data)
	if size <= 0 || n > uint64(len(r.data)-size) {
		r.failed, r.data = true, nil
		return nil
	}
	b := r.data[size : size+int(n)]
	r.data = r.data[size+int(n):]
	return b
}

func (r *reader) int() int64 {
	n, size := binary.Varint(r.data)
	if size <= 0 {
		r.failed, r.data = true, nil
		return 0
	}
	r.data = r.data[size:]
	return n
}
