package ledger

import (
	"bytes"
	"cmp"
	"context"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
)

// rowsAtOnce bounds one read from a stream.
const rowsAtOnce = 200

// Rows reads rows, newest first. Errors are those of Redis and of ctx, or wrap ErrQuery.
func (b *Redis) Rows(ctx context.Context, f Filter) (Page, error) {
	f = f.normal()
	from, err := parseCursor(f.Cursor)
	if err != nil {
		return Page{}, err
	}
	orgs, err := b.orgs(ctx, &f.Match)
	if err != nil {
		return Page{}, fmt.Errorf("read the ledger: %w", err)
	}
	m := merge{Redis: b, filter: &f}
	for _, org := range orgs {
		bound := from.id()
		if org < from.org {
			bound = "(" + bound // the row of this organisation at that id was on the page before
		}
		m.sources = append(m.sources, &source{org: org, key: Shelf(Slot(b.prefix, org)) + ":rows", bound: bound})
	}
	if err := m.run(ctx); err != nil {
		return Page{}, fmt.Errorf("read the ledger: %w", err)
	}
	return m.page, nil
}

// merge puts the streams of organisations in one order.
type merge struct {
	*Redis
	filter  *Filter
	sources []*source
	page    Page
}

// source is the stream of one organisation, newest first.
type source struct {
	org, key, bound string
	rows            []Row
	spots           []spot
	end             bool // nothing is left to read
}

func (m *merge) run(ctx context.Context) error {
	for {
		if err := m.fill(ctx); err != nil {
			return err
		}
		m.sources = slices.DeleteFunc(m.sources, func(s *source) bool { return len(s.rows) == 0 && s.end })
		if len(m.sources) == 0 {
			return nil
		}
		s := slices.MinFunc(m.sources, func(a, b *source) int { return newer(a.spots[0], b.spots[0]) })
		row, at := s.rows[0], s.spots[0]
		s.rows, s.spots = s.rows[1:], s.spots[1:]
		switch {
		case !m.filter.row(&row):
		case len(m.page.Rows) == m.filter.Limit:
			m.page.Next = at.cursor()
			return nil
		default:
			m.page.Rows = append(m.page.Rows, row)
		}
	}
}

// fill reads on where nothing is left in hand, in one pipeline.
func (m *merge) fill(ctx context.Context) error {
	var empty []*source
	for _, s := range m.sources {
		if len(s.rows) == 0 && !s.end {
			empty = append(empty, s)
		}
	}
	if len(empty) == 0 {
		return nil
	}
	count := int64(min(m.filter.Limit+1, rowsAtOnce))
	replies := make([]*redis.XMessageSliceCmd, len(empty))
	_, err := m.client.Pipelined(ctx, func(p redis.Pipeliner) error {
		for i, s := range empty {
			replies[i] = p.XRevRangeN(ctx, s.key, s.bound, "-", count)
		}
		return nil
	})
	for i, s := range empty {
		err = cmp.Or(err, s.take(replies[i].Val(), count, m.filter.Since))
	}
	return err
}

func (s *source) take(messages []redis.XMessage, count int64, since time.Time) error {
	s.end = int64(len(messages)) < count
	for _, msg := range messages {
		row, err := readEntry(msg)
		if err != nil {
			return err
		}
		at, err := parseSpot(msg.ID, s.org)
		if err != nil {
			return err
		}
		if row.Posted.Before(since.Add(-slack)) {
			s.end = true
			return nil
		}
		s.rows, s.spots = append(s.rows, row), append(s.spots, at)
		s.bound = "(" + msg.ID
	}
	return nil
}

func readEntry(msg redis.XMessage) (Row, error) {
	data, _ := msg.Values["r"].(string)
	row, err := decode([]byte(data))
	if err != nil {
		return Row{}, err
	}
	posted, _ := msg.Values["t"].(string)
	us, err := strconv.ParseInt(posted, 10, 64)
	if err != nil {
		return Row{}, errRow
	}
	row.Posted = time.UnixMicro(us).UTC()
	return row, nil
}

// spot is the place of a row among those of all organisations: by id in its stream, then
// by organisation.
type spot struct {
	ms, seq uint64
	org     string
}

// newer orders spots, newest first.
func newer(a, b spot) int {
	return cmp.Or(cmp.Compare(b.ms, a.ms), cmp.Compare(b.seq, a.seq), strings.Compare(a.org, b.org))
}

func (s spot) id() string {
	return strconv.FormatUint(s.ms, 10) + "-" + strconv.FormatUint(s.seq, 10)
}

func parseSpot(id, org string) (spot, error) {
	left, right, _ := strings.Cut(id, "-")
	ms, err := strconv.ParseUint(left, 10, 64)
	seq, err2 := strconv.ParseUint(right, 10, 64)
	return spot{ms, seq, org}, errors.Join(err, err2)
}

// cursor is the spot that a page begins with.
func (s spot) cursor() string {
	data := binary.AppendUvarint(binary.AppendUvarint(nil, s.ms), s.seq)
	return base64.RawURLEncoding.EncodeToString(append(data, s.org...))
}

func parseCursor(s string) (spot, error) {
	if s == "" {
		return spot{ms: math.MaxUint64, seq: math.MaxUint64}, nil
	}
	data, err := base64.RawURLEncoding.DecodeString(s)
	in := bytes.NewReader(data)
	ms, err2 := binary.ReadUvarint(in)
	seq, err3 := binary.ReadUvarint(in)
	if errors.Join(err, err2, err3) != nil || ms == 0 || in.Len() > maxName {
		return spot{}, fmt.Errorf("%w: the cursor is none of ours", ErrQuery)
	}
	return spot{ms, seq, string(data[len(data)-in.Len():])}, nil
}
