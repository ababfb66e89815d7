package ratelimit

import (
	"context"
	"errors"
	"os"
	"time"
)

// errPostpone moves a settlement to the end of the journal, where it stands in nobody's way.
var errPostpone = errors.New("later")

// replayAtOnce bounds the settlements that are given in one piece: what stands in memory, and
// what is given again when one of them fails.
const replayAtOnce = 32

// Replay gives every settlement that was in the journal when it was called to settle, in
// the order in which they were written, several at a time, and removes it. settle returns an
// error, or nil, for each. Replay ends early with the first one, or with ctx's; what it did not
// come to stays, with those that were given together with one that failed and stand behind it.
// So a settlement may be given again, also by a later process if this one dies before its file
// is removed. done is how many settle took.
func (j *Journal) Replay(ctx context.Context, settle func(context.Context, []*Settlement) []error) (done int64, err error) {
	j.replaying.Lock()
	defer j.replaying.Unlock()
	j.mu.Lock()
	err = j.seal()
	todo := append([]*segment(nil), j.segments...)
	j.mu.Unlock()
	if err != nil {
		return 0, err
	}
	for _, s := range todo {
		n, err := j.replaySegment(ctx, s, settle)
		done += n
		if err != nil {
			return done, err
		}
		if err := j.drop(s); err != nil {
			return done, err
		}
	}
	return done, nil
}

// replayed is a record of a segment.
type replayed struct {
	settlement *Settlement // nil: there is nothing to settle
	at         time.Time
	bytes      int
	err        error
	expired    bool
}

// replaySegment goes on where it ended last time.
func (j *Journal) replaySegment(ctx context.Context, s *segment, settle func(context.Context, []*Settlement) []error) (done int64, err error) {
	text, err := os.ReadFile(s.path)
	if errors.Is(err, os.ErrNotExist) {
		j.tell("a file of settlements is gone", s, 0)
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	for int64(len(text)) > s.offset {
		if ctx.Err() != nil {
			return done, context.Cause(ctx)
		}
		some := j.readSome(text[s.offset:])
		if len(some) == 0 {
			j.tell("the end of a file of settlements cannot be read", s, int64(len(text))-s.offset)
			return done, nil
		}
		var due []*Settlement
		for i := range some {
			if r := &some[i]; r.settlement != nil && !r.expired {
				due = append(due, r.settlement)
			}
		}
		var errs []error
		if len(due) > 0 {
			errs = settle(ctx, due)
		}
		n, err := j.passSome(s, text, some, errs)
		done += n
		if err != nil {
			return done, err
		}
	}
	return done, nil
}

// readSome reads records up to one that is torn, which is none of them, or to a second one of
// the same call: only the first counts.
func (j *Journal) readSome(text []byte) (some []replayed) {
	ids := make(map[string]bool, replayAtOnce)
	for len(text) > 0 && len(some) < replayAtOnce {
		settlement, at, n, err := nextRecord(text)
		if errors.Is(err, errTorn) {
			break
		}
		if settlement != nil {
			if ids[settlement.Call.ID] {
				break
			}
			ids[settlement.Call.ID] = true
		}
		some = append(some, replayed{settlement, at, n, err, settlement != nil && time.Since(at) > j.opt.MaxAge})
		text = text[n:]
	}
	return some
}

// passSome notes what became of records; errs are those of the ones that were to be settled.
func (j *Journal) passSome(s *segment, text []byte, some []replayed, errs []error) (done int64, err error) {
	for i := range some {
		r := &some[i]
		switch {
		case r.err != nil:
			j.tell("a settlement cannot be read", s, int64(r.bytes))
		case r.settlement == nil:
		case r.expired:
			j.expire(r.settlement, r.at)
		default:
			err, errs = errs[0], errs[1:]
			switch {
			case err == nil:
				done++
			case errors.Is(err, ErrForgotten):
				j.expire(r.settlement, r.at)
			case !errors.Is(err, errPostpone):
				return done, err
			default:
				if err := j.rewrite(text[s.offset:][:r.bytes]); err != nil {
					return done, err
				}
			}
		}
		j.passed(s, r.bytes, r.settlement != nil)
	}
	return done, nil
}

// rewrite appends a record as it is.
func (j *Journal) rewrite(record []byte) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if err := j.write(record); err != nil {
		return err
	}
	j.last().records++
	j.pending++
	return nil
}

func (j *Journal) passed(s *segment, n int, counted bool) {
	s.offset += int64(n)
	if counted {
		j.mu.Lock()
		s.records--
		j.pending--
		j.mu.Unlock()
	}
}

// tell counts and logs records that cannot be read.
func (j *Journal) tell(what string, s *segment, bytes int64) {
	j.mu.Lock()
	j.damaged++
	j.mu.Unlock()
	j.opt.Log.Warn(what, "file", s.path, "offset", s.offset, "bytes", bytes)
}

func (j *Journal) expire(s *Settlement, at time.Time) {
	j.mu.Lock()
	j.expired++
	j.mu.Unlock()
	if s.Used == (Cost{}) && s.Row.ID == "" {
		return // it would have given back what was reserved, long ago
	}
	j.opt.Log.Error("a settlement is too old to be replayed, and dropped", "request_id", s.Call.ID, "written", at,
		"input", s.Used.Input, "output", s.Used.Output, "money", s.Used.Money)
}

// drop removes a segment that is replayed.
func (j *Journal) drop(s *segment) error {
	if err := os.Remove(s.path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	j.bytes -= s.bytes
	j.pending -= s.records // of a torn end
	for i := range j.segments {
		if j.segments[i] == s {
			j.segments = append(j.segments[:i], j.segments[i+1:]...)
			break
		}
	}
	if errors.Is(j.failed, ErrJournalFull) {
		j.works()
	}
	return nil
}
