package ratelimit

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"hash/crc32"
	"time"

	"sluice/ratelimit/ledger"
)

// A record of the journal is a head of eight bytes, the length of the body and its
// CRC-32C, both little-endian, and the body: an entry in JSON. A body of no bytes says
// nothing; it is written to see whether writing works.
const recordHead = 8

// maxRecord bounds a body. A settlement has a few hundred bytes; the rules that a key
// carries come on top.
const maxRecord = 1 << 20

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// entry is a settlement as the journal keeps it: what another process needs to settle it.
type entry struct {
	At   time.Time   `json:"at"` // when it was written
	ID   string      `json:"id"`
	Who  Subject     `json:"who"`
	Want Cost        `json:"want"`
	Used Cost        `json:"used"`
	Row  *ledger.Row `json:"row,omitempty"` // nil: none is to be posted

	Granted bool `json:"granted,omitempty"` // as in Past
	Sent    bool `json:"sent,omitempty"`
}

var errRecordSize = errors.New("the settlement is too large for the journal")

// appendRecord adds a settlement, framed.
func appendRecord(dst []byte, s *Settlement, at time.Time) ([]byte, error) {
	e := entry{At: at, ID: s.Call.ID, Who: s.Call.Who, Want: s.Call.Want, Used: s.Used}
	if s.Row.ID != "" {
		e.Row = &s.Row
	}
	if s.Past != nil {
		e.Granted, e.Sent = s.Past.Granted, s.Past.Sent
	}
	body, err := json.Marshal(&e)
	if err != nil {
		return dst, err
	}
	if len(body) > maxRecord {
		return dst, errRecordSize
	}
	return appendFrame(dst, body), nil
}

func appendFrame(dst, body []byte) []byte {
	dst = binary.LittleEndian.AppendUint32(dst, uint32(len(body)))
	dst = binary.LittleEndian.AppendUint32(dst, crc32.Checksum(body, castagnoli))
	return append(dst, body...)
}

// errTorn means that the text ends within a record, or that it goes on with something else
// than a record: what follows cannot be read.
var errTorn = errors.New("torn record")

// errRecord means that the record is whole and its content is not: the next one may be good.
var errRecord = errors.New("damaged record")

// nextRecord reads the record at the beginning of text. n is its size, also for errRecord.
// s is nil for a record that says nothing.
func nextRecord(text []byte) (s *Settlement, at time.Time, n int, err error) {
	if len(text) < recordHead {
		return nil, at, 0, errTorn
	}
	size := binary.LittleEndian.Uint32(text)
	if size > maxRecord || int(size) > len(text)-recordHead {
		return nil, at, 0, errTorn
	}
	n = recordHead + int(size)
	body := text[recordHead:n]
	if crc32.Checksum(body, castagnoli) != binary.LittleEndian.Uint32(text[4:]) {
		return nil, at, n, errRecord
	}
	if size == 0 {
		return nil, at, n, nil
	}
	var e entry
	if err := json.Unmarshal(body, &e); err != nil || e.ID == "" {
		return nil, at, n, errRecord
	}
	s = &Settlement{Call: &Call{ID: e.ID, Who: e.Who, Want: e.Want}, Used: e.Used,
		Past: &Past{Granted: e.Granted, Sent: e.Sent, At: e.At}}
	if e.Row != nil {
		s.Row = *e.Row
	}
	return s, e.At, n, nil
}
