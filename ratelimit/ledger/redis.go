package ledger

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"
)

//go:embed post_once.lua
var postOnceLua string

// Redis is the book that all replicas share: it reads what ledger_post wrote, on a single
// server, behind Sentinel or on a Cluster. It may be used concurrently.
//
// Redis knows the time: rows are posted, and hours begin, by its clock. Questions about
// all organisations ask each of those that Saw was told of, one after the other.
type Redis struct {
	client redis.UniversalClient
	prefix string
	keep   Retention
	script *redis.Script

	mu      sync.Mutex
	known   map[string]time.Time // organisations in the register, and when they were entered
	pending map[string]struct{}  // organisations to be entered
	idle    *sync.Cond           // nothing is pending
}

const (
	enterEvery   = time.Hour
	enterTimeout = 2 * time.Second
	maxKnown     = 100_000 // organisations that are known to be entered; beyond it they are entered again
	idSeconds    = 86_400  // for which Post knows an id
	hoursAtOnce  = 256     // per pipeline
)

// NewRedis makes a book over the keys with the prefix. The client stays the caller's.
func NewRedis(client redis.UniversalClient, prefix string, keep Retention) *Redis {
	b := &Redis{
		client: client, prefix: prefix, keep: keep.withDefaults(), script: redis.NewScript(keep.Lua() + postOnceLua),
		known: map[string]time.Time{}, pending: map[string]struct{}{},
	}
	b.idle = sync.NewCond(&b.mu)
	return b
}

// Close waits until what Saw was told has been entered, or has failed to.
func (b *Redis) Close() error {
	b.settle()
	return nil
}

func (b *Redis) settle() {
	b.mu.Lock()
	defer b.mu.Unlock()
	for len(b.pending) > 0 {
		b.idle.Wait()
	}
}

// Post writes a row by a script of its own, unless its id was posted by Post within a day.
// Rows of calls that a limiter settles are written by its scripts and not by Post.
func (b *Redis) Post(ctx context.Context, r *Row) error {
	b.Saw(r.Org)
	shelf := Shelf(Slot(b.prefix, r.Org))
	guard := ""
	if r.ID != "" {
		guard = shelf + ":i:" + Escape(cut(r.ID))
	}
	err := b.script.Run(ctx, b.client, []string{shelf + ":rows"}, shelf, Encode(nil, r), guard, idSeconds).Err()
	if err != nil && !errors.Is(err, redis.Nil) {
		return fmt.Errorf("post to the ledger: %w", err)
	}
	return nil
}

func (b *Redis) register() string { return b.prefix + "{shared}:l:orgs" }

// Saw enters an organisation into the register of those with rows, unless this was done
// within the hour. It does not wait for Redis; what fails is tried at the next call.
func (b *Redis) Saw(org string) {
	org = cut(org)
	b.mu.Lock()
	defer b.mu.Unlock()
	if at, ok := b.known[org]; ok && time.Since(at) < enterEvery {
		return
	}
	if len(b.known) >= maxKnown {
		clear(b.known)
	}
	b.known[org] = time.Now()
	b.pending[org] = struct{}{}
	if len(b.pending) == 1 {
		go b.enter()
	}
}

// enter works until nothing is pending.
func (b *Redis) enter() {
	for {
		b.mu.Lock()
		members := make([]redis.Z, 0, len(b.pending))
		for org := range b.pending {
			members = append(members, redis.Z{Score: float64(time.Now().Unix()), Member: org})
		}
		b.mu.Unlock()
		err := b.enterAll(members)
		b.mu.Lock()
		for _, m := range members {
			delete(b.pending, m.Member.(string))
			if err != nil {
				delete(b.known, m.Member.(string))
			}
		}
		more := len(b.pending) > 0
		if !more {
			b.idle.Broadcast()
		}
		b.mu.Unlock()
		if !more {
			return
		}
	}
}

func (b *Redis) enterAll(members []redis.Z) error {
	ctx, cancel := context.WithTimeout(context.Background(), enterTimeout)
	defer cancel()
	_, err := b.client.Pipelined(ctx, func(p redis.Pipeliner) error {
		p.ZAdd(ctx, b.register(), members...)
		gone := time.Now().Add(-max(b.keep.RowAge, b.keep.SumAge) - 2*enterEvery).Unix()
		p.ZRemRangeByScore(ctx, b.register(), "-inf", strconv.FormatInt(gone, 10))
		return nil
	})
	return err
}

// orgs are those that a question is about, in order.
func (b *Redis) orgs(ctx context.Context, m *Match) ([]string, error) {
	if !m.AllOrgs {
		return []string{m.Org}, nil
	}
	b.settle()
	orgs, err := b.client.ZRange(ctx, b.register(), 0, -1).Result()
	slices.Sort(orgs)
	return orgs, err
}

// Usage adds up hourly sums. Errors are those of Redis and of ctx, or wrap ErrQuery.
func (b *Redis) Usage(ctx context.Context, q Query) ([]Sum, error) {
	g, err := newGrouping(q)
	if err != nil {
		return nil, err
	}
	now, err := b.client.Time(ctx).Result()
	if err != nil {
		return nil, fmt.Errorf("read the ledger: %w", err)
	}
	orgs, err := b.orgs(ctx, &g.match)
	if err != nil {
		return nil, fmt.Errorf("read the ledger: %w", err)
	}
	first, end := g.match.hours()
	first, end = max(first, hourOf(now)-int64(b.keep.SumAge/time.Hour)), min(end, hourOf(now)+2)
	for _, org := range orgs {
		for from := first; from < end; from += hoursAtOnce {
			if err := b.addHours(ctx, g, org, from, min(from+hoursAtOnce, end)); err != nil {
				return nil, fmt.Errorf("read the ledger: %w", err)
			}
		}
	}
	return g.result(), nil
}

// addHours reads the sums of an organisation in [from, end), in one pipeline.
func (b *Redis) addHours(ctx context.Context, g *grouping, org string, from, end int64) error {
	p := Shelf(Slot(b.prefix, org)) + ":h:"
	replies := make([]func() (map[string]string, error), 0, end-from)
	_, err := b.client.Pipelined(ctx, func(pipe redis.Pipeliner) error {
		for hour := from; hour < end; hour++ {
			replies = append(replies, b.readHour(ctx, pipe, g, p+strconv.FormatInt(hour, 10)))
		}
		return nil
	})
	if err != nil {
		return err
	}
	for i, reply := range replies {
		sums, err := reply()
		if err != nil {
			return err
		}
		for field, value := range sums {
			n, err := decodeName(field)
			if err != nil || len(value) != amountBytes {
				return errRow
			}
			var a amounts
			a.read([]byte(value))
			if err := g.add(from+int64(i), org, n, &a); err != nil {
				return err
			}
		}
	}
	return nil
}

// readHour asks for the sums of an hour. Those of one key are picked by Redis: their names
// begin with it.
func (b *Redis) readHour(ctx context.Context, pipe redis.Pipeliner, g *grouping, key string) func() (map[string]string, error) {
	if g.match.Key == "" {
		return pipe.HGetAll(ctx, key).Result
	}
	pattern := glob(string(appendTexts(nil, g.match.Key))) + "*"
	count := int64(2*b.keep.Names + 2)
	reply := pipe.HScan(ctx, key, 0, pattern, count)
	return func() (map[string]string, error) {
		sums := map[string]string{}
		for {
			pairs, cursor, err := reply.Result()
			if err != nil {
				return nil, err
			}
			for i := 0; i+1 < len(pairs); i += 2 {
				sums[pairs[i]] = pairs[i+1]
			}
			if cursor == 0 {
				return sums, nil
			}
			reply = b.client.HScan(ctx, key, cursor, pattern, count)
		}
	}
}

// glob quotes what means something in a pattern.
func glob(s string) string {
	return strings.NewReplacer(`\`, `\\`, `*`, `\*`, `?`, `\?`, `[`, `\[`, `]`, `\]`).Replace(s)
}
