package ledger

import (
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"strconv"
	"testing"
	"time"
)

// TestMemoryHeap bounds what a full book costs the collector: memory that is live, and
// objects, each of which it would have to visit.
func TestMemoryHeap(t *testing.T) {
	const rows, mostBytes, mostObjects = 30_000, 2 << 20, 500
	m := NewMemory(Retention{}, time.Now)
	bytes, objects := heap()
	post := func(i int) {
		row := testRow(0)
		row.ID = "req_0123456789abcdef" + strconv.Itoa(100_000+i)
		row.Model = []string{"gpt-5", "llama-3", "qwen"}[i%3]
		row.User = "user" + strconv.Itoa(i%40)
		if err := m.Post(t.Context(), &row); err != nil {
			t.Fatal(err)
		}
	}
	for i := range rows {
		post(i)
	}
	moreBytes, moreObjects := heap()
	runtime.KeepAlive(m)
	t.Logf("%d bytes, %d objects", moreBytes-bytes, moreObjects-objects)
	if moreBytes-bytes > mostBytes || moreObjects-objects > mostObjects {
		t.Errorf("%d bytes and %d objects are live, of at most %d and %d", moreBytes-bytes, moreObjects-objects, mostBytes, mostObjects)
	}
	row, ctx, i := testRow(0), t.Context(), rows
	var id [32]byte
	if n := testing.AllocsPerRun(10_000, func() {
		i++
		row.ID = string(strconv.AppendInt(id[:0], int64(i), 10)) // one allocation
		_ = m.Post(ctx, &row)
	}); n > 1 {
		t.Errorf("%v allocations for each row", n-1)
	}
}

func heap() (bytes, objects int) {
	runtime.GC()
	runtime.GC()
	var s runtime.MemStats
	runtime.ReadMemStats(&s)
	return int(s.HeapAlloc), int(s.HeapObjects)
}

// TestShelf keeps rows of all sizes beside a plain list of them.
func TestShelf(t *testing.T) {
	for _, most := range []int{1, 7, 300, 3_000} {
		rnd := rand.New(rand.NewPCG(1, uint64(most)))
		var want []Row
		s := shelf{most: most}
		s.gone = func(name uint32) {
			if name != uint32(want[0].Money) {
				t.Fatalf("row of name %d is gone, want %d", name, want[0].Money)
			}
			want = want[1:]
		}
		for i := range 20_000 {
			row := Row{ID: string(make([]byte, rnd.IntN(256))), Money: int64(i), Start: time.UnixMicro(rnd.Int64N(1 << 52)).UTC(),
				Posted: time.UnixMicro(rnd.Int64N(1 << 52)).UTC(), Reserved: rnd.Int64() - 1<<62, Attempts: int64(i % 3)}
			if i%1_000 < 300 {
				row.Op, row.End = row.ID, row.ID
			}
			a := row.amounts()
			want = append(want, row)
			s.add(row.Posted.UnixMicro(), uint32(i), &row, &a)
			if i%5_000 > 4_900 && s.len() > 0 {
				s.drop()
			}
			if s.len() != len(want) || s.len() > most {
				t.Fatalf("%d rows, want %d", s.len(), len(want))
			}
			if i%977 > 0 {
				continue
			}
			for j := range want {
				if got, name, err := s.read(s.oldest + uint64(j)); err != nil || got != want[j] || name != uint32(got.Money) {
					t.Fatalf("row %d of %d at %d: %v\n got %+v\nwant %+v", j, len(want), i, err, got, want[j])
				}
			}
		}
		if limit := 2 + most*usualRow/shelfBlock; len(s.blocks) > limit {
			t.Errorf("%d blocks of at most %d", len(s.blocks), limit)
		}
	}
}

// TestNames finds and releases names at random beside a map.
func TestNames(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	var n names
	numbers, counts := map[string]uint32{}, map[string]int{}
	var held []string
	for i := range 100_000 {
		if grows := i/20_000%2 == 0; rnd.IntN(3) == 0 == grows && len(held) > 0 {
			at := rnd.IntN(len(held))
			text := held[at]
			held = slices.Delete(held, at, at+1)
			if n.release(numbers[text]); counts[text] == 1 {
				delete(numbers, text)
			}
			counts[text]--
			continue
		}
		text := fmt.Sprintf("%0*d", 5+rnd.IntN(60), rnd.IntN(4_000))
		number := n.find([]byte(text))
		if had, ok := numbers[text]; ok && had != number {
			t.Fatalf("%s is %d and %d", text, had, number)
		}
		numbers[text] = number
		counts[text]++
		held = append(held, text)
	}
	live := 0
	for text, number := range numbers {
		live += len(text)
		if got := n.text(n.entries.at(number)); string(got) != text {
			t.Errorf("%s is told as %s", text, got)
		}
	}
	if n.count != len(numbers) || n.live != live || len(n.texts) > 2*live+2*minCompact {
		t.Errorf("%d names of %d, %d bytes of %d, %d taken", n.count, len(numbers), n.live, live, len(n.texts))
	}
}

// TestMemoryNames has rows whose long names never come again: they are forgotten with
// their hours and rows.
func TestMemoryNames(t *testing.T) {
	now := time.Unix(1_700_000_000, 0)
	m := NewMemory(Retention{Rows: 20_000}, func() time.Time { return now })
	long := string(make([]byte, 250))
	for i := range 30_000 {
		row := testRow(i)
		row.Org, row.Key, row.User, row.Team, row.Model = long, long, long, long, long+strconv.Itoa(i)
		if err := m.Post(t.Context(), &row); err != nil {
			t.Fatal(err)
		}
		if i%100 == 0 {
			now = now.Add(20 * time.Minute)
		}
		if m.names.live > maxNames {
			t.Fatalf("%d bytes of names", m.names.live)
		}
	}
	now = now.Add(91 * day)
	row := testRow(50_000)
	if err := m.Post(t.Context(), &row); err != nil || m.names.count != 1 || m.held != 1 {
		t.Errorf("%v, %d names, %d sums", err, m.names.count, m.held)
	}
}

// TestMemoryClockBack goes on with the sums of an hour that has been left before.
func TestMemoryClockBack(t *testing.T) {
	start := time.Unix(1_700_000_000, 0)
	now := start
	m := NewMemory(Retention{Names: 5}, func() time.Time { return now })
	const rounds, models = 6, 9
	for round := range rounds {
		now = start.Add(time.Duration(round%2) * time.Hour)
		for i := range models {
			row := testRow(100*round + i)
			row.Model = strconv.Itoa(i)
			if err := m.Post(t.Context(), &row); err != nil {
				t.Fatal(err)
			}
		}
	}
	sums, err := m.Usage(t.Context(), Query{Match: Match{AllOrgs: true}, By: []Group{ByHour, ByModel}})
	if err != nil || len(sums) != 12 || m.held != 12 {
		t.Fatalf("%d sums, %d held, %v", len(sums), m.held, err)
	}
	for _, s := range sums {
		want := int64(rounds / 2)
		if s.Model == sumOther {
			want *= models - 5
		}
		if s.Calls != want {
			t.Errorf("%s at %v: %d calls, want %d", s.Model, s.From, s.Calls, want)
		}
	}
}
