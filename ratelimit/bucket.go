package ratelimit

import (
	"math/bits"
	"time"
)

// placesRetry is how long to wait for a place of Streams: nobody knows when calls end.
const placesRetry = time.Second

// fill is what is stored of a bucket that holds an amount. The arithmetic is exact in
// integers: what flowed in up to any time does not depend on how often anybody looked.
type fill struct {
	level    int64 // negative in debt
	fraction int64 // of one unit, in 1/period; less than the period
	at       int64 // microseconds: up to here inflow is counted in level and fraction
}

// calendar reports whether the bucket fills at once when a period begins.
func (p Per) calendar() bool { return p >= CalendarDay }

// micros is the length of the period; of the longest month for CalendarMonth.
func (p Per) micros() int64 {
	switch p {
	case Second:
		return 1e6
	case Minute:
		return 60e6
	case Hour:
		return 3600e6
	case CalendarMonth:
		return 31 * dayMicros
	default:
		return dayMicros
	}
}

const dayMicros = 86400e6

// begin is when the calendar period of now began, in UTC.
func (p Per) begin(now int64) int64 {
	if p == CalendarDay {
		return now - (now%dayMicros+dayMicros)%dayMicros
	}
	t := time.UnixMicro(now).UTC()
	return time.Date(t.Year(), t.Month(), 1, 0, 0, 0, 0, time.UTC).UnixMicro()
}

// end is when the calendar period of now ends, in UTC.
func (p Per) end(now int64) int64 {
	if p == CalendarDay {
		return p.begin(now) + dayMicros
	}
	t := time.UnixMicro(now).UTC()
	return time.Date(t.Year(), t.Month()+1, 1, 0, 0, 0, 0, time.UTC).UnixMicro()
}

// full is a bucket that nobody has taken from.
func full(r *Rule, now int64) fill { return fill{level: r.Full(), at: now} }

// advance counts what has flowed in up to now. Time that runs back counts nothing, and is
// waited for. If that would take more than two periods, the clock was wrong before, and the
// bucket is full: nobody is locked out for longer, and one burst too many may pass. A level
// above the burst, which was lowered, is cut. A full bucket is like one that was never used.
func (f *fill) advance(r *Rule, now int64) {
	period := r.Per.micros()
	if f.fraction >= period { // the rule had a longer one
		f.fraction = 0
	}
	switch {
	case f.level >= r.Full(), f.at > now+2*period:
		*f = full(r, now)
	case f.at >= now:
	case !r.Per.calendar():
		f.flow(r, uint64(now-f.at))
		f.at = now
	case f.at < r.Per.begin(now):
		*f = full(r, now)
	default:
		f.fraction, f.at = 0, now
	}
}

// flow adds what flows in during dt microseconds, (dt·amount + fraction) / period, to a
// bucket that is not full.
func (f *fill) flow(r *Rule, dt uint64) {
	period := uint64(r.Per.micros())
	hi, lo := bits.Mul64(dt, uint64(max(r.Amount, 1)))
	lo, carry := bits.Add64(lo, uint64(f.fraction), 0)
	hi += carry
	if hi >= period { // more than any bucket holds
		f.level, f.fraction = r.Full(), 0
		return
	}
	whole, rest := bits.Div64(hi, lo, period)
	if whole >= uint64(r.Full()-f.level) {
		f.level, f.fraction = r.Full(), 0
		return
	}
	f.level += int64(whole)
	f.fraction = int64(rest)
}

// add changes the level; a negative n is taken. The bucket was advanced before.
func (f *fill) add(r *Rule, n int64) {
	f.level = max(f.level+n, -MaxBudget)
	if f.level >= r.Full() {
		f.level, f.fraction = r.Full(), 0
	}
}

// wait is how long it takes until the level is need, rounded up to a microsecond. The
// bucket was advanced before.
func (f *fill) wait(r *Rule, need, now int64) time.Duration {
	if f.level >= need {
		return 0
	}
	if r.Per.calendar() {
		return time.Duration(r.Per.end(max(now, f.at))-now) * time.Microsecond
	}
	amount := uint64(max(r.Amount, 1))
	hi, lo := bits.Mul64(uint64(need-f.level), uint64(r.Per.micros()))
	lo, borrow := bits.Sub64(lo, uint64(f.fraction), 0)
	hi -= borrow
	lo, carry := bits.Add64(lo, amount-1, 0)
	if hi += carry; hi >= amount {
		return maxWait
	}
	micros, _ := bits.Div64(hi, lo, amount)
	if micros > uint64(maxWait/time.Microsecond) {
		return maxWait
	}
	return time.Duration(int64(micros)+max(f.at-now, 0)) * time.Microsecond
}

// maxWait stands for a wait that is longer than anybody waits: a hundred years.
const maxWait = 100 * 365 * 24 * time.Hour
