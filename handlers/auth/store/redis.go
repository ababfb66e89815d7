package store

import (
	"context"
	"crypto/rand"
	_ "embed"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"

	"sluice/handlers/auth"
)

//go:embed write.lua
var writeLua string

//go:embed changes.lua
var changesLua string

// redisShelf is what all replicas share: a single server, behind Sentinel or a Cluster, where
// all of it is in one slot. The truth is a revision that grows with every edit, which is
// looked at every 500 ms; a message wakes those who listen earlier.
type redisShelf struct {
	client          redis.UniversalClient
	keys            []string // of the scripts
	used, channel   string
	pepper          string
	writing, change *redis.Script

	stop   context.CancelFunc
	closed chan struct{}

	// Of read, by one at a time: up to where the copy knows.
	rev, tag string

	mu   sync.Mutex
	made made // by write, and not yet found by read
}

// made is the last edit that was acknowledged here. A Redis that has it no more has lost it, be
// it in the moment after: when a replica takes over that had not heard of it.
type made struct {
	rev int64 // 0: there is none
	tag string
}

const (
	recordsAtOnce = 500
	tagsKept      = 10_000
	firstRead     = 10 * time.Second
	writeWithin   = 5 * time.Second
)

// OpenRedis opens the keys that all replicas share. The client, made with options that went
// through ratelimit.TuneRedis, stays the caller's. It fails only for a wrong pepper (ErrPepper)
// and bad options: when Redis cannot be reached the store is as yet without keys, and Verify
// returns ErrUnavailable until it has read them.
//
// While Redis is out of reach keys are good as the copy has them, for Options.MaxStale at most; edits
// fail; and from 2 s on Verify returns ErrUnavailable in place of ErrUnknown, since a key may be
// new. A Redis that comes back without some or all of the keys, or that lost a revocation
// when a replica took over, is given back what any gateway that runs knows. It needs Redis 6.2.
func OpenRedis(ctx context.Context, client redis.UniversalClient, o Options) (*Store, error) {
	s, err := newStore(o)
	if err != nil {
		return nil, err
	}
	p := s.o.Prefix + "{keys}:"
	r := &redisShelf{
		client: client, keys: []string{p + "records", p + "log", p + "meta", p + "tags"}, used: p + "used", channel: p + "changed",
		pepper: s.o.Pepper.Fingerprint(), writing: redis.NewScript(writeLua), change: redis.NewScript(changesLua),
		closed: make(chan struct{}),
	}
	s.shelf, s.attic, s.remote = r, r, true
	first, cancel := context.WithTimeout(ctx, firstRead)
	defer cancel()
	switch err := s.sync(first); {
	case errors.Is(err, ErrPepper):
		return nil, err
	case ctx.Err() != nil:
		return nil, ctx.Err()
	case err != nil:
		s.log.Warn("the keys cannot be read from Redis yet; those that it holds are refused until then", "error", err)
	}
	s.setLevel()
	listening, stop := context.WithCancel(context.Background())
	r.stop = stop
	go r.listen(listening, s.wake)
	s.start()
	return s, nil
}

// listen wakes the store when somebody says that something has changed. What is lost with a
// connection is found at the next look.
func (r *redisShelf) listen(ctx context.Context, wake chan<- struct{}) {
	defer close(r.closed)
	sub := r.client.Subscribe(ctx, r.channel)
	defer func() { _ = sub.Close() }()
	messages := sub.Channel()
	for {
		select {
		case <-ctx.Done():
			return
		case _, ok := <-messages:
			if !ok {
				return
			}
		}
		select {
		case wake <- struct{}{}:
		default:
		}
	}
}

func (r *redisShelf) close() error {
	r.stop()
	<-r.closed
	return nil
}

// write does the edits in as few scripts as their number allows. One that got no answer is
// tried once more: doing it twice is doing it once.
func (r *redisShelf) write(ctx context.Context, edits []edit) []error {
	ctx, cancel := context.WithTimeout(ctx, writeWithin)
	defer cancel()
	errs := make([]error, len(edits))
	args := make([]any, 0, 4+3*len(edits))
	tag := rand.Text()
	args = append(args, r.pepper, r.channel, tag, tagsKept)
	for i := range edits {
		e := &edits[i]
		args = append(args, e.id.String(), strconv.FormatUint(e.was, 10), strconv.FormatUint(e.is, 10)+" "+tag+" "+string(e.text))
	}
	done, err := r.writing.Run(ctx, r.client, r.keys, args...).Int64Slice()
	if err != nil && ctx.Err() == nil && !isPepper(err) {
		done, err = r.writing.Run(ctx, r.client, r.keys, args...).Int64Slice()
	}
	switch {
	case isPepper(err):
		err = ErrPepper
	case err == nil && len(done) != len(edits):
		err = errors.New("the answer is not that of our script")
	}
	for i := range errs {
		switch {
		case err != nil:
			errs[i] = fmt.Errorf("write a key: %w", err)
		case done[i] == 0:
			errs[i] = ErrConflict
		default:
			r.note(made{done[i], tag})
		}
	}
	return errs
}

func (r *redisShelf) note(m made) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if m.rev > r.made.rev {
		r.made = m
	}
}

func (r *redisShelf) lastMade() made {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.made
}

// found forgets an edit: Redis has it, or was found to have lost it.
func (r *redisShelf) found(m made) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.made == m {
		r.made = made{}
	}
}

func isPepper(err error) bool { return err != nil && strings.HasPrefix(err.Error(), "PEPPER") }

// changes is one answer of changes.lua.
type changes struct {
	rev, tag string
	lost     bool
	upTo     string
	records  []string
}

func (r *redisShelf) changes(ctx context.Context, rev, tag string, reading bool, own made) (c changes, err error) {
	ctx, cancel := context.WithTimeout(ctx, readWithin)
	defer cancel()
	unchecked := 0
	if reading {
		unchecked = 1
	}
	reply, err := r.change.Run(ctx, r.client, r.keys, rev, tag, unchecked, recordsAtOnce, own.rev, own.tag).Slice()
	if err != nil {
		return c, fmt.Errorf("read the keys: %w", err)
	}
	text := make([]string, len(reply))
	for i, v := range reply {
		text[i], _ = v.(string)
	}
	if len(reply) < 5 {
		return c, errors.New("read the keys: the answer is not that of our script")
	}
	if pepper := text[2]; pepper != "" && pepper != r.pepper {
		return c, ErrPepper
	}
	lost, _ := reply[3].(int64)
	return changes{rev: text[0], tag: text[1], lost: lost == 1, upTo: text[4], records: text[5:]}, nil
}

// read visits what has changed, in the order of the changes.
func (r *redisShelf) read(ctx context.Context, visit func(text []byte, whole bool)) (whole bool, err error) {
	rev, tag := r.rev, r.tag
	whole = rev == ""
	if whole {
		rev = "0"
	}
	own := r.lastMade()
	for reading := whole; ; reading = true {
		c, err := r.changes(ctx, rev, tag, reading, own)
		if err != nil {
			return whole, err
		}
		if c.lost {
			whole, rev = true, "0"
			continue
		}
		for _, record := range c.records {
			if parts := strings.SplitN(record, " ", 3); len(parts) == 3 {
				visit([]byte(parts[2]), whole)
			}
		}
		if rev = c.upTo; len(c.records) < recordsAtOnce {
			r.rev, r.tag = c.rev, c.tag
			r.found(own)
			if c.rev == "0" {
				r.restart() // there is no history yet
			}
			return whole, nil
		}
	}
}

func (r *redisShelf) restart() { r.rev, r.tag = "", "" }

func (r *redisShelf) purge(ctx context.Context, ids []auth.KeyID) error {
	for from := 0; from < len(ids); from += recordsAtOnce {
		names := make([]string, 0, recordsAtOnce)
		members := make([]any, 0, recordsAtOnce)
		for _, id := range ids[from:min(from+recordsAtOnce, len(ids))] {
			names, members = append(names, id.String()), append(members, id.String())
		}
		_, err := r.client.TxPipelined(ctx, func(p redis.Pipeliner) error {
			p.HDel(ctx, r.keys[0], names...)
			p.ZRem(ctx, r.keys[1], members...)
			p.ZRem(ctx, r.used, members...)
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

func (r *redisShelf) touch(ctx context.Context, used map[auth.KeyID]int64) error {
	ctx, cancel := context.WithTimeout(ctx, writeWithin)
	defer cancel()
	members := make([]redis.Z, 0, recordsAtOnce)
	flush := func() error {
		err := r.client.ZAddArgs(ctx, r.used, redis.ZAddArgs{GT: true, Members: members}).Err()
		members = members[:0]
		return err
	}
	for id, at := range used {
		if members = append(members, redis.Z{Score: float64(at), Member: id.String()}); len(members) == recordsAtOnce {
			if err := flush(); err != nil {
				return err
			}
		}
	}
	if len(members) == 0 {
		return nil
	}
	return flush()
}

func (r *redisShelf) touched(ctx context.Context, ids []auth.KeyID) ([]int64, error) {
	ctx, cancel := context.WithTimeout(ctx, readWithin)
	defer cancel()
	names := make([]string, len(ids))
	for i, id := range ids {
		names[i] = id.String()
	}
	scores, err := r.client.ZMScore(ctx, r.used, names...).Result()
	if err != nil || len(scores) != len(ids) {
		return nil, errors.Join(err, errors.New("read when keys were used"))
	}
	used := make([]int64, len(ids))
	for i, score := range scores {
		used[i] = int64(score)
	}
	return used, nil
}
