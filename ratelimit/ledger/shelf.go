package ledger

import (
	"encoding/binary"
	"time"
)

// shelf holds the newest rows, one after the other in blocks of bytes that are used again
// and again. Blocks are made when they are needed, and at most as many as most rows of
// usualRow bytes fill: beyond that the oldest rows make room. (A usual row takes 90 bytes.)
type shelf struct {
	most   int
	blocks [][]byte
	free   []uint32 // blocks without rows, to be written next
	place  []uint32 // of row n, at n % most: block · 2^16 + offset
	oldest uint64   // row that is kept
	next   uint64   // row to come
	gone   func(name uint32)
}

const (
	shelfBlock = 1 << 16
	shelfHead  = 8 + 4 // of a row: time of posting (µs), number of its name; little endian
	largestRow = shelfHead + 1 + 4*(2+maxName) + 12*binary.MaxVarintLen64
)

func (s *shelf) len() int { return int(s.next - s.oldest) }

func (s *shelf) row(n uint64) []byte {
	at := s.place[n%uint64(s.most)]
	return s.blocks[at>>16][at&(shelfBlock-1):]
}

func (s *shelf) posted(n uint64) int64 { return int64(binary.LittleEndian.Uint64(s.row(n))) }

// add copies a row; a are its amounts. Name is the number of the name under which it counts.
func (s *shelf) add(posted int64, name uint32, r *Row, a *amounts) {
	if s.len() == s.most {
		s.drop()
	}
	block := s.open()
	data := s.blocks[block]
	at := block<<16 | uint32(len(data))
	if i := int(s.next % uint64(s.most)); i < len(s.place) {
		s.place[i] = at
	} else {
		s.place = append(s.place, at)
	}
	s.next++
	data = binary.LittleEndian.AppendUint64(data, uint64(posted))
	data = binary.LittleEndian.AppendUint32(data, name)
	data = append(data, byte(a[8]))
	data = appendText(data, r.ID)
	data = appendText(data, r.Op)
	data = appendText(data, r.Transport)
	data = appendText(data, r.End)
	for _, n := range a[1:8] {
		data = binary.AppendVarint(data, n)
	}
	data = binary.AppendVarint(data, posted-r.Start.UnixMicro())
	data = binary.AppendVarint(data, int64(r.TTFT))
	data = binary.AppendVarint(data, int64(r.Total))
	data = binary.AppendVarint(data, r.Reserved)
	s.blocks[block] = binary.AppendVarint(data, r.Attempts)
}

// writing is the block of the newest row.
func (s *shelf) writing() (uint32, bool) {
	if s.next == 0 {
		return 0, false
	}
	return s.place[(s.next-1)%uint64(s.most)] >> 16, true
}

// open finds a block with room for one row.
func (s *shelf) open() uint32 {
	if block, ok := s.writing(); ok {
		if s.len() == 0 {
			s.blocks[block] = s.blocks[block][:0]
		}
		if len(s.blocks[block])+largestRow <= shelfBlock {
			return block
		}
	}
	if len(s.free) == 0 {
		if most := 2 + s.most*usualRow/shelfBlock; len(s.blocks) < most {
			s.blocks = append(s.blocks, make([]byte, 0, shelfBlock))
			return uint32(len(s.blocks) - 1)
		}
		for len(s.free) == 0 {
			s.drop()
		}
	}
	block := s.free[len(s.free)-1]
	s.free = s.free[:len(s.free)-1]
	s.blocks[block] = s.blocks[block][:0]
	return block
}

// drop forgets the oldest row.
func (s *shelf) drop() {
	name := binary.LittleEndian.Uint32(s.row(s.oldest)[8:])
	block := s.place[s.oldest%uint64(s.most)] >> 16
	s.oldest++
	last := s.oldest == s.next || s.place[s.oldest%uint64(s.most)]>>16 != block
	if writing, _ := s.writing(); last && block != writing {
		s.free = append(s.free, block)
	}
	s.gone(name)
}

// read decodes what add wrote, but for the name. It shares no memory with the shelf.
func (s *shelf) read(n uint64) (r Row, name uint32, err error) {
	data := s.row(n)
	posted := int64(binary.LittleEndian.Uint64(data))
	name = binary.LittleEndian.Uint32(data[8:])
	r.Posted = time.UnixMicro(posted).UTC()
	r.Estimated = data[shelfHead] != 0
	in := reader{data: data[shelfHead+1:]}
	r.ID, r.Op, r.Transport, r.End = in.text(), in.text(), in.text(), in.text()
	for _, n := range [...]*int64{&r.Requests, &r.Input, &r.Cached, &r.Output, &r.Reasoning, &r.Frames, &r.Money} {
		*n = in.int()
	}
	r.Start = time.UnixMicro(posted - in.int()).UTC()
	r.TTFT, r.Total = time.Duration(in.int()), time.Duration(in.int())
	r.Reserved, r.Attempts = in.int(), in.int()
	if in.failed {
		return Row{}, 0, errRow
	}
	return r, name, nil
}
