package ledger

import (
	"context"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"sync"
	"time"
)

// maxHeld bounds the hourly sums that are held in memory. Beyond it the oldest hour goes.
const maxHeld = 50_000

// Memory is a book that ends with the process. Rows and sums together take at most about
// 30 MB at the default bounds. It may be used concurrently.
type Memory struct {
	now  func() time.Time
	keep Retention

	mu      sync.Mutex
	seen    *seen
	ring    [][]byte // row n is at n % keep.Rows: time of posting (µs, 8 bytes), encoded row
	oldest  uint64   // row that is kept
	next    uint64   // row to come
	hours   map[int64]map[string]*amounts
	held    int
	hour    int64               // that present is of
	present map[string]*amounts // one of hours, or nil
	scratch []byte
}

// NewMemory makes an empty book. The clock tells when a row is posted.
func NewMemory(keep Retention, clock func() time.Time) *Memory {
	keep = keep.withDefaults()
	return &Memory{now: clock, keep: keep, seen: newSeen(keep.Rows), hours: map[int64]map[string]*amounts{}}
}

// Post writes a row, unless its id was posted before: as many ids are known as rows are
// kept. It never fails, and keeps nothing of the row's memory.
func (m *Memory) Post(_ context.Context, r *Row) error {
	now := m.now()
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.seen.add(r.ID) {
		return nil
	}
	slot := m.slot()
	data := binary.LittleEndian.AppendUint64((*slot)[:0], uint64(now.UnixMicro()))
	data = Encode(data, r)
	*slot = data
	m.next++
	m.expire(now)
	var a amounts
	a.read(data[9:])
	m.sum(hourOf(now), cut(r.Org), data[8:]).add(&a)
	return nil
}

// slot is where the next row goes; what was there is overwritten.
func (m *Memory) slot() *[]byte {
	if len(m.ring) < m.keep.Rows {
		m.ring = append(m.ring, nil)
	}
	if m.next-m.oldest == uint64(m.keep.Rows) {
		m.oldest++
	}
	return &m.ring[m.next%uint64(m.keep.Rows)]
}

// expire drops rows by age.
func (m *Memory) expire(now time.Time) {
	limit := now.Add(-m.keep.RowAge).UnixMicro()
	for ; m.oldest < m.next; m.oldest++ {
		slot := &m.ring[m.oldest%uint64(m.keep.Rows)]
		if int64(binary.LittleEndian.Uint64(*slot)) >= limit {
			return
		}
		*slot = nil
	}
}

// sum finds the hourly sum of an encoded row.
func (m *Memory) sum(hour int64, org string, row []byte) *amounts {
	if m.hour != hour || m.present == nil {
		m.turn(hour)
	}
	sums := m.present
	lengths := [...]int{nameLength(row, 0), nameLength(row, 2), 0}
	for i, n := range lengths {
		m.scratch = appendTexts(m.scratch[:0], org)
		m.scratch = append(m.scratch, row[rowHead:rowHead+n]...)
		if a := sums[string(m.scratch)]; a != nil {
			return a
		}
		if len(sums) < (i+1)*m.keep.Names {
			return m.hold(sums, hour, string(m.scratch))
		}
	}
	if a := sums[allOthers]; a != nil {
		return a
	}
	return m.hold(sums, hour, allOthers)
}

// turn makes an hour the present one.
func (m *Memory) turn(hour int64) {
	if m.hours[hour] == nil {
		m.hours[hour] = map[string]*amounts{}
		m.dropHours(hour - int64(m.keep.SumAge/time.Hour))
	}
	m.hour, m.present = hour, m.hours[hour]
}

// allOthers is the key of the sum of what had no place under its organisation.
const allOthers = "\x07" + sumOther

// nameLength reads one of the two lengths in the head of an encoded row.
func nameLength(row []byte, at int) int {
	return int(binary.LittleEndian.Uint16(row[1+amountBytes+at:]))
}

func (m *Memory) hold(sums map[string]*amounts, hour int64, key string) *amounts {
	a := new(amounts)
	sums[key] = a
	m.held++
	for m.held > maxHeld && len(m.hours) > 1 {
		oldest := hour
		for h := range m.hours {
			oldest = min(oldest, h)
		}
		if oldest == hour {
			break
		}
		m.drop(oldest)
	}
	return a
}

func (m *Memory) dropHours(before int64) {
	for h := range m.hours {
		if h < before {
			m.drop(h)
		}
	}
}

func (m *Memory) drop(hour int64) {
	m.held -= len(m.hours[hour])
	delete(m.hours, hour)
}

// Usage adds up hourly sums. Errors wrap ErrQuery.
func (m *Memory) Usage(ctx context.Context, q Query) ([]Sum, error) {
	g, err := newGrouping(q)
	if err != nil {
		return nil, err
	}
	first, end := g.match.hours()
	first = max(first, hourOf(m.now())-int64(m.keep.SumAge/time.Hour))
	m.mu.Lock()
	var hours []int64
	for h := range m.hours {
		if h >= first && h < end {
			hours = append(hours, h)
		}
	}
	m.mu.Unlock()
	for _, h := range hours { // one hour per lock, so that no caller waits for long
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		if err := m.addHour(g, h); err != nil {
			return nil, err
		}
	}
	return g.result(), nil
}

func (m *Memory) addHour(g *grouping, hour int64) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	for key, a := range m.hours[hour] {
		org, n, err := decodeSumKey(key)
		if err != nil {
			return err
		}
		if err := g.add(hour, org, n, a); err != nil {
			return err
		}
	}
	return nil
}

// decodeSumKey splits the organisation, as a text, from the name of a sum.
func decodeSumKey(key string) (string, name, error) {
	in := reader{data: []byte(key)}
	org := in.text()
	if in.failed {
		return "", name{}, errRow
	}
	n, err := decodeName(string(in.data))
	return org, n, err
}

// Rows reads rows, newest first. Errors wrap ErrQuery.
func (m *Memory) Rows(ctx context.Context, f Filter) (Page, error) {
	f = f.normal()
	upTo, err := readCursor(f.Cursor)
	if err != nil {
		return Page{}, err
	}
	var page Page
	for upTo > 0 && len(page.Rows) <= f.Limit {
		if err := ctx.Err(); err != nil {
			return Page{}, err
		}
		if upTo, err = m.some(&page, &f, upTo); err != nil {
			return Page{}, err
		}
	}
	return page, nil
}

// some looks at a few rows before upTo, and tells where to go on; 0 is the end.
func (m *Memory) some(page *Page, f *Filter, upTo uint64) (uint64, error) {
	const step = 64 // rows under one lock
	m.mu.Lock()
	defer m.mu.Unlock()
	oldest, limit := m.oldest, m.now().Add(-m.keep.RowAge)
	n := min(upTo, m.next)
	for i := 0; i < step && n > oldest; i++ {
		data := m.ring[(n-1)%uint64(m.keep.Rows)]
		row, err := decode(data[8:])
		if err != nil {
			return 0, err
		}
		row.Posted = time.UnixMicro(int64(binary.LittleEndian.Uint64(data))).UTC()
		if row.Posted.Before(limit) {
			return 0, nil
		}
		if f.row(&row) && page.full(f, row, n) {
			return 0, nil
		}
		n--
	}
	if n <= oldest {
		return 0, nil
	}
	return n, nil
}

// full adds a row to a page, or notes on a full one that the next begins with row n.
func (p *Page) full(f *Filter, row Row, n uint64) bool {
	if len(p.Rows) == f.Limit {
		p.Next = writeCursor(n)
		return true
	}
	p.Rows = append(p.Rows, row)
	return false
}

// A cursor is the number after the row that the page begins with.
func writeCursor(upTo uint64) string {
	return base64.RawURLEncoding.EncodeToString(binary.AppendUvarint(nil, upTo))
}

func readCursor(s string) (uint64, error) {
	if s == "" {
		return 1<<64 - 1, nil
	}
	data, err := base64.RawURLEncoding.DecodeString(s)
	if n, size := binary.Uvarint(data); err == nil && size == len(data) && size > 0 && n > 0 {
		return n, nil
	}
	return 0, fmt.Errorf("%w: the cursor is none of ours", ErrQuery)
}
