package ratelimit

import (
	"context"
	"errors"
	"os"
	"time"
)

// errPostpone moves a settlement to the end of the journal, where it stands in nobody's way.
var errPostpone = errors.New("later")

// Replay gives every settlement that was in the journal when it was called to settle, in
// the order in which they were written, and removes it. It ends early with the first error
// of settle, or with ctx's; what it did not come to stays. A settlement may be given again
// by a later process if this one dies before its file is removed. done is how many
// settle took.
func (j *Journal) Replay(ctx context.Context, settle func(context.Context, *Settlement) error) (done int64, err error) {
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

// replaySegment goes on where it ended last time.
func (j *Journal) replaySegment(ctx context.Context, s *segment, settle func(context.Context, *Settlement) error) (done int64, err error) {
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
		settlement, at, n, err := nextRecord(text[s.offset:])
		switch {
		case errors.Is(err, errTorn):
			j.tell("the end of a file of settlements cannot be read", s, int64(len(text))-s.offset)
			return done, nil
		case err != nil:
			j.tell("a settlement cannot be read", s, int64(n))
		case settlement == nil:
		case time.Since(at) > j.opt.MaxAge:
			j.expire(settlement, at)
		default:
			switch err := settle(ctx, settlement); {
			case err == nil:
				done++
			case errors.Is(err, ErrForgotten):
				j.expire(settlement, at)
			case !errors.Is(err, errPostpone):
				return done, err
			default:
				if err := j.rewrite(text[s.offset:][:n]); err != nil {
					return done, err
				}
			}
		}
		j.passed(s, n, settlement != nil)
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
