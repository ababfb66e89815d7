package ratelimit

import (
	"math/big"
	"testing"
	"time"
)

// FuzzFill takes two looks at a bucket that fills steadily and compares them with one look,
// and with integers of unlimited size.
func FuzzFill(f *testing.F) {
	f.Add(int64(100), int64(0), uint8(Minute), int64(-165), int64(7), uint32(1), uint64(60e6))
	f.Add(int64(1e9), int64(1e9), uint8(Day), int64(-4e15), int64(86400e6-1), uint32(1e9), uint64(1<<62))
	f.Add(int64(1), int64(1e9), uint8(Day), int64(5), int64(1e6-1), uint32(0), uint64(86400e6))
	f.Add(int64(7), int64(3), uint8(Second), int64(4), int64(0), uint32(142857), uint64(1))
	f.Fuzz(func(t *testing.T, amount, burst int64, per uint8, level, fraction int64, first uint32, then uint64) {
		r := &Rule{Amount: fold(amount, 1, MaxFlow), Burst: fold(burst, 0, MaxFlow), Per: Second + Per(per)%4}
		start := fill{level: fold(level, -MaxBudget, r.Full()), fraction: fold(fraction, 0, r.Per.micros()-1)}
		start.add(r, 0)
		now := int64(then & (1<<61 - 1))
		once, twice := start, start
		twice.advance(r, min(int64(first), now))
		twice.advance(r, now)
		once.advance(r, now)
		if once != twice {
			t.Fatalf("%+v from %+v: %+v with a look between, else %+v", r, start, twice, once)
		}
		wantLevel, wantFraction := flowBig(r, start, now)
		if once.level != wantLevel || once.fraction != wantFraction || once.at != now {
			t.Fatalf("%+v from %+v to %d: %+v, want %d and %d", r, start, now, once, wantLevel, wantFraction)
		}
		checkWait(t, r, start)
	})
}

// fold maps any integer into a range.
func fold(n, low, high int64) int64 {
	size := new(big.Int).Sub(big.NewInt(high+1), big.NewInt(low))
	return low + new(big.Int).Mod(big.NewInt(n), size).Int64()
}

func flowBig(r *Rule, f fill, now int64) (level, fraction int64) {
	period := big.NewInt(r.Per.micros())
	sum := new(big.Int).Mul(big.NewInt(now-f.at), big.NewInt(r.Amount))
	sum.Add(sum, big.NewInt(f.fraction))
	rest := new(big.Int)
	sum.DivMod(sum, period, rest)
	sum.Add(sum, big.NewInt(f.level))
	if sum.Cmp(big.NewInt(r.Full())) >= 0 {
		return r.Full(), 0
	}
	return sum.Int64(), rest.Int64()
}

// checkWait checks that the bucket is full after its wait, and not a microsecond earlier.
func checkWait(t *testing.T, r *Rule, f fill) {
	wait := f.wait(r, r.Full(), f.at)
	if f.level == r.Full() {
		if wait != 0 {
			t.Fatalf("full %+v waits %v", f, wait)
		}
		return
	}
	if wait == maxWait {
		if level, _ := flowBig(r, f, f.at+maxWait.Microseconds()-1); level >= r.Full() {
			t.Fatalf("%+v of %+v is full before %v", f, r, wait)
		}
		return
	}
	for _, c := range []struct {
		after time.Duration
		full  bool
	}{{wait, true}, {wait - time.Microsecond, false}} {
		if level, _ := flowBig(r, f, f.at+c.after.Microseconds()); (level == r.Full()) != c.full {
			t.Fatalf("%+v of %+v has %d after %v", f, r, level, c.after)
		}
	}
}

// FuzzCalendar compares the begin and end of days and months with the time package's dates.
func FuzzCalendar(f *testing.F) {
	for _, s := range []string{"2028-02-29T23:59:59Z", "1999-12-31T23:59:59Z", "2100-02-28T00:00:00Z", "1969-12-31T12:00:00Z"} {
		at, err := time.Parse(time.RFC3339, s)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(at.UnixMicro())
	}
	f.Fuzz(func(t *testing.T, now int64) {
		now = fold(now, -1e16, 1e16)
		for _, p := range []Per{CalendarDay, CalendarMonth} {
			begin, end := time.UnixMicro(p.begin(now)).UTC(), time.UnixMicro(p.end(now)).UTC()
			next := begin.AddDate(0, 0, 1)
			if p == CalendarMonth {
				next = begin.AddDate(0, 1, 0)
			}
			if begin.UnixMicro() > now || end.UnixMicro() <= now || !end.Equal(next) ||
				begin.Truncate(24*time.Hour) != begin || p == CalendarMonth && begin.Day() != 1 {
				t.Fatalf("%d is within %v to %v", now, begin, end)
			}
		}
	})
}

func TestTheFractionOfALongerPeriodIsDropped(t *testing.T) {
	f := fill{level: 3, fraction: Day.micros() - 1}
	f.advance(&Rule{Amount: 10, Per: Second}, 0)
	if want := (fill{level: 3}); f != want {
		t.Fatalf("%+v, want %+v", f, want)
	}
}

func TestAWaitOfCenturiesIsCut(t *testing.T) {
	f := fill{level: -MaxBudget}
	if w := f.wait(&Rule{Amount: 1, Per: Day}, 1, 0); w != maxWait {
		t.Fatalf("wait of %v", w)
	}
}
