package ratelimit

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"io"
	"net"
	"strings"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"
)

// TuneRedis sets what a client for NewRedis needs and leaves the rest as it is: deadlines of
// calls are kept, and the limiter alone decides what is tried again.
func TuneRedis(o *redis.UniversalOptions) {
	o.ContextTimeoutEnabled = true
	o.MaxRetries = -1
	o.MaxRedirects = 1
	o.MinRetryBackoff, o.MaxRetryBackoff = time.Millisecond, 4*time.Millisecond
	o.DialerRetries = 1
	if o.DialTimeout == 0 {
		o.DialTimeout = 2 * time.Second
	}
}

// NewRedis returns a limiter whose buckets are in Redis. The client, made with options that
// went through TuneRedis, stays the caller's: Close leaves it open. Redis need not be
// reachable yet.
func NewRedis(client redis.UniversalClient, o RedisOptions) *Redis {
	o.setDefaults()
	ctx, stop := context.WithCancel(context.Background())
	r := &Redis{
		rules: o.Rules, prefix: o.Prefix, shared: o.Prefix + "{shared}", o: o, log: o.Log,
		scripts: newRedisScripts(o.Retention.Lua(), o.clock),
		store:   redisStore{client}, name: newGatewayName(),
		open: newRedisOpen(o.MaxOpen), orgs: redisOrgs{known: map[string]time.Time{}},
		tail: &redisTail{keep: o.Tail, most: o.TailBytes},
		stop: stop, stopped: ctx,
	}
	r.batch = &redisBatcher{send: r.store.send, limit: o.Timeout * 3 / 5, width: 2, most: 128, room: 8192}
	r.routines.Add(2)
	go func() { defer r.routines.Done(); r.renewer(ctx) }()
	go func() { defer r.routines.Done(); r.sweeper(ctx) }()
	return r
}

// newGatewayName is eight characters that no other process has. None of them is a "-", which in
// front of a name tells TURN that a gateway leaves.
func newGatewayName() string {
	var b [6]byte
	_, _ = rand.Read(b[:])
	return base64.RawStdEncoding.EncodeToString(b[:])
}

// redisStore runs scripts.
type redisStore struct{ client redis.UniversalClient }

// send runs the calls in one trip (in a cluster: one per node) and gives each its outcome.
func (s redisStore) send(ctx context.Context, calls []*redisCall) {
	if len(calls) == 1 {
		cmd := command(ctx, calls[0])
		_ = s.client.Process(ctx, cmd)
		calls[0].reply, calls[0].err = cmd.Result()
		return
	}
	pipe := s.client.Pipeline()
	cmds := make([]*redis.Cmd, len(calls))
	for i, c := range calls {
		cmds[i] = command(ctx, c)
		_ = pipe.Process(ctx, cmds[i])
	}
	_, err := pipe.Exec(ctx)
	for i, c := range calls {
		c.reply, c.err = cmds[i].Result()
		if c.err == nil && c.reply == nil {
			c.err = err // it was never sent
		}
	}
}

func command(ctx context.Context, c *redisCall) *redis.Cmd {
	args := make([]any, 0, 3+len(c.keys)+len(c.args))
	if c.whole {
		args = append(args, "eval", c.script.text)
	} else {
		args = append(args, "evalsha", c.script.sha)
	}
	args = append(args, len(c.keys))
	for _, k := range c.keys {
		args = append(args, k)
	}
	return redis.NewCmd(ctx, append(args, c.args...)...)
}

// again reports whether a call that failed is worth a second try, and makes it ready for it:
// Redis does not know the script, has moved, is a replica by now, or the connection broke.
// That the first try ran all the same does no harm.
func (redisStore) again(c *redisCall) bool {
	if redis.HasErrorPrefix(c.err, "NOSCRIPT") {
		c.whole = true
		return true
	}
	for _, prefix := range []string{"READONLY", "LOADING", "MOVED", "ASK", "TRYAGAIN", "CLUSTERDOWN", "MASTERDOWN"} {
		if redis.HasErrorPrefix(c.err, prefix) {
			return true
		}
	}
	var network net.Error
	return errors.As(c.err, &network) || errors.Is(c.err, io.EOF) || errors.Is(c.err, io.ErrUnexpectedEOF) ||
		errors.Is(c.err, context.DeadlineExceeded)
}

// masters calls look for each server that holds keys, several at a time. Those that can be
// reached are looked at also when others cannot.
func (s redisStore) masters(ctx context.Context, look func(context.Context, *redis.Client) error) error {
	switch c := s.client.(type) {
	case *redis.ClusterClient:
		var mu sync.Mutex
		var errs []error
		err := c.ForEachMaster(ctx, func(ctx context.Context, c *redis.Client) error {
			if err := look(ctx, c); err != nil {
				mu.Lock()
				defer mu.Unlock()
				errs = append(errs, err)
			}
			return nil
		})
		return errors.Join(append(errs, err)...)
	case *redis.Client:
		return look(ctx, c)
	default:
		return errors.New("a client of an unknown kind")
	}
}

// info looks for a field in what all masters tell of a section.
func (s redisStore) info(ctx context.Context, section, field string, found func(value string)) error {
	var mu sync.Mutex
	return s.masters(ctx, func(ctx context.Context, c *redis.Client) error {
		info, err := c.Info(ctx, section).Result()
		if err != nil {
			return err
		}
		for line := range strings.Lines(info) {
			if value, ok := strings.CutPrefix(strings.TrimSpace(line), field+":"); ok {
				mu.Lock()
				found(value)
				mu.Unlock()
			}
		}
		return nil
	})
}

// runIDs are those of all masters that answer; a server has another one after each start. The
// error says that some do not answer.
func (s redisStore) runIDs(ctx context.Context) (map[string]bool, error) {
	ids := map[string]bool{}
	err := s.info(ctx, "server", "run_id", func(id string) { ids[id] = true })
	return ids, err
}

// evicts returns the policy by which any of the masters evicts keys; empty if none does.
func (s redisStore) evicts(ctx context.Context) (policy string, err error) {
	err = s.info(ctx, "memory", "maxmemory_policy", func(p string) {
		if p != "noeviction" {
			policy = p
		}
	})
	return policy, err
}
