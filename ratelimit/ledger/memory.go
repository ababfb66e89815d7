package ledger

import (
	"cmp"
	"context"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"math"
	"slices"
	"sync"
	"time"
)

const (
	maxHeld  = 50_000   // hourly sums that are held; beyond it the oldest hour goes
	maxNames = 16 << 20 // bytes of names that are held; beyond it the oldest hours go, then the oldest rows
)

// Memory is a book that ends with the process. It takes memory as rows come: usually 1.5 MB,
// and at the default bounds at most 4 MB for rows, 0.5 MB for ids, 5 MB for sums, 4 MB to
// find names and 16 MB for their texts, twice that while names come and go. The collector
// has next to nothing to read there. It may be used concurrently.
type Memory struct {
	now  func() time.Time
	keep Retention

	mu      sync.Mutex
	seen    *seen
	rows    shelf
	names   names
	sums    pool[sum]
	hours   []hour // in order
	held    int    // sums
	present int    // index in hours, of the hour that turn is about
	turn    uint32 // counts how often another hour became the present one
	scratch []byte
}

// sum is what the rows of one name and hour add up to.
type sum struct {
	amounts
	name uint32
	next uint32 // of the same hour, numbered from 1
}

type hour struct {
	number int64  // since 1970
	first  uint32 // sum, numbered from 1
	count  int
}

// NewMemory makes an empty book. The clock tells when a row is posted.
func NewMemory(keep Retention, clock func() time.Time) *Memory {
	keep = keep.withDefaults()
	m := &Memory{now: clock, keep: keep, seen: newSeen(keep.Rows), present: -1}
	m.rows = shelf{most: keep.Rows, gone: m.names.release}
	return m
}

// Post writes a row, unless its id was posted before: as many ids are known as rows are
// kept. It never fails, and keeps nothing of the row's memory.
func (m *Memory) Post(_ context.Context, r *Row) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.seen.add(r.ID) {
		return nil
	}
	now := m.now()
	posted := now.UnixMicro()
	m.expire(posted)
	m.turnTo(hourOf(now))
	a := r.amounts()
	text, short := appendSumKey(m.scratch[:0], r)
	m.scratch = text
	name := m.names.find(text)
	m.rows.add(posted, name, r, &a)
	m.sums.at(m.sum(name, text[:short])).add(&a)
	m.bound()
	return nil
}

// appendSumKey appends organisation and name of the row's sum. The first short bytes of
// it are the key for all its models and targets together.
func appendSumKey(dst []byte, r *Row) (key []byte, short int) {
	dst = appendText(dst, r.Org)
	dst = appendText(dst, r.Key)
	dst = appendText(dst, r.User)
	dst = appendText(dst, r.Team)
	short = len(dst)
	dst = appendText(dst, r.Model)
	return appendText(dst, r.Target), short
}

// expire drops rows by age.
func (m *Memory) expire(now int64) {
	limit := now - m.keep.RowAge.Microseconds()
	for m.rows.len() > 0 && m.rows.posted(m.rows.oldest) < limit {
		m.rows.drop()
	}
}

// bound drops what has too many names, or too long ones.
func (m *Memory) bound() {
	for m.names.live > maxNames {
		switch {
		case m.dropOldest():
		case m.rows.len() > 0:
			m.rows.drop()
		default:
			return
		}
	}
}

// sum finds the sum of this hour that rows of a name count in. While the hour has room,
// each name gets its own; then key, user and team get one together; then everybody.
func (m *Memory) sum(name uint32, short []byte) uint32 {
	e := m.names.entries.at(name)
	if e.turn == m.turn {
		return e.sum
	}
	if count := m.hours[m.present].count; count < m.keep.Names {
		e.refs++
		return m.hold(name)
	}
	i, ok := m.shared(short, 2*m.keep.Names)
	if !ok {
		i, _ = m.shared([]byte(allOthers), math.MaxInt)
	}
	e.turn, e.sum = m.turn, i
	return i
}

// shared finds or makes a sum for several names, unless the hour has as many as most.
func (m *Memory) shared(key []byte, most int) (uint32, bool) {
	name := m.names.find(key)
	if e := m.names.entries.at(name); e.turn == m.turn {
		i := e.sum
		m.names.release(name)
		return i, true
	}
	if m.hours[m.present].count >= most {
		m.names.release(name)
		return 0, false
	}
	return m.hold(name), true
}

// hold makes a sum of the present hour. It keeps the caller's count of the name.
func (m *Memory) hold(name uint32) uint32 {
	i, h := m.sums.get(), &m.hours[m.present]
	*m.sums.at(i) = sum{name: name, next: h.first}
	h.first = i + 1
	h.count++
	e := m.names.entries.at(name)
	e.turn, e.sum = m.turn, i
	for m.held++; m.held > maxHeld && m.dropOldest(); {
	}
	return i
}

// turnTo makes an hour the present one. If it was that before, because the clock has gone
// back, its names are told their sums again.
func (m *Memory) turnTo(number int64) {
	if m.present >= 0 && m.hours[m.present].number == number {
		return
	}
	m.turn++
	at, had := m.find(number)
	if !had {
		m.hours = slices.Insert(m.hours, at, hour{number: number})
	}
	m.present = at
	for i := m.hours[at].first; i != 0; {
		s := m.sums.at(i - 1)
		e := m.names.entries.at(s.name)
		e.turn, e.sum = m.turn, i-1
		i = s.next
	}
	for m.hours[0].number < number-int64(m.keep.SumAge/time.Hour) {
		m.drop(0)
	}
}

func (m *Memory) find(number int64) (int, bool) {
	return slices.BinarySearchFunc(m.hours, number, func(h hour, n int64) int { return cmp.Compare(h.number, n) })
}

// allOthers is the key of the sum of what had no place under its organisation.
const allOthers = "\x07" + sumOther

// dropOldest drops the oldest hour, unless that is the present one.
func (m *Memory) dropOldest() bool {
	if m.present == 0 {
		return false
	}
	m.drop(0)
	return true
}

// drop forgets an hour before the present one.
func (m *Memory) drop(at int) {
	for i := m.hours[at].first; i != 0; {
		s := m.sums.at(i - 1)
		next := s.next
		m.names.release(s.name)
		m.sums.put(i - 1)
		i = next
	}
	m.held -= m.hours[at].count
	m.hours = slices.Delete(m.hours, at, at+1)
	m.present--
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
	for _, h := range m.hours {
		if h.number >= first && h.number < end {
			hours = append(hours, h.number)
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

func (m *Memory) addHour(g *grouping, number int64) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	at, ok := m.find(number)
	if !ok {
		return nil
	}
	for i := m.hours[at].first; i != 0; {
		s := m.sums.at(i - 1)
		i = s.next
		org, n, err := m.nameOf(s.name)
		if err != nil {
			return err
		}
		if err := g.add(number, org, n, &s.amounts); err != nil {
			return err
		}
	}
	return nil
}

func (m *Memory) nameOf(i uint32) (org string, n name, err error) {
	return decodeSumKey(string(m.names.text(m.names.entries.at(i))))
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
	oldest, limit := m.rows.oldest, m.now().Add(-m.keep.RowAge)
	n := min(upTo, m.rows.next)
	for i := 0; i < step && n > oldest; i++ {
		row, err := m.row(n - 1)
		if err != nil {
			return 0, err
		}
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

func (m *Memory) row(i uint64) (Row, error) {
	r, name, err := m.rows.read(i)
	if err != nil {
		return r, err
	}
	org, n, err := m.nameOf(name)
	r.Org, r.Key, r.User, r.Team, r.Model, r.Target = org, n.key, n.user, n.team, n.model, n.target
	return r, err
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
