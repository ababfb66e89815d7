package store

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"sluice/handlers/auth"
)

// Sessions are strings that end by themselves; beside them each holder has a sorted set of
// the sessions that were opened, by when. All of it is in one slot.

// ofAdmin names a key of what belongs to the admin API.
func (r *redisShelf) ofAdmin(name string) string {
	return strings.TrimSuffix(r.used, "{keys}:used") + "{admin}:" + name
}

func (r *redisShelf) sessionKey(id auth.SessionID) string {
	return r.ofAdmin("session:" + hex.EncodeToString(id[:]))
}

func (r *redisShelf) holderKey(holder string) string {
	sum := sha256.Sum256([]byte(holder))
	return r.ofAdmin("sessions:" + hex.EncodeToString(sum[:16]))
}

// holdersKept is for how long the sessions of a holder who opens none are counted.
const holdersKept = 24 * time.Hour

// left is how long until then. Replicas' clocks differ, so less than a second is a second.
func (r *redisShelf) left(until time.Time) time.Duration { return max(time.Until(until), time.Second) }

func (r *redisShelf) openSession(ctx context.Context, id auth.SessionID, holder string, text []byte, until time.Time) error {
	ctx, cancel := context.WithTimeout(ctx, writeWithin)
	defer cancel()
	var old *redis.StringSliceCmd
	set := r.holderKey(holder)
	_, err := r.client.TxPipelined(ctx, func(p redis.Pipeliner) error {
		p.Set(ctx, r.sessionKey(id), text, r.left(until))
		p.ZAdd(ctx, set, redis.Z{Score: float64(time.Now().UnixMilli()), Member: hex.EncodeToString(id[:])})
		p.PExpire(ctx, set, holdersKept)
		old = p.ZRange(ctx, set, 0, -auth.MaxSessions-1)
		return nil
	})
	if err != nil || len(old.Val()) == 0 {
		return err
	}
	_, err = r.client.TxPipelined(ctx, func(p redis.Pipeliner) error {
		for _, id := range old.Val() {
			p.Del(ctx, r.ofAdmin("session:"+id))
			p.ZRem(ctx, set, id)
		}
		return nil
	})
	return err
}

func (r *redisShelf) findSession(ctx context.Context, id auth.SessionID) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, readWithin)
	defer cancel()
	text, err := r.client.Get(ctx, r.sessionKey(id)).Bytes()
	if errors.Is(err, redis.Nil) {
		return nil, nil
	}
	return text, err
}

func (r *redisShelf) touchSession(ctx context.Context, id auth.SessionID, text []byte, until time.Time) (found bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, writeWithin)
	defer cancel()
	return r.client.SetXX(ctx, r.sessionKey(id), text, r.left(until)).Result()
}

func (r *redisShelf) endSession(ctx context.Context, id auth.SessionID) error {
	ctx, cancel := context.WithTimeout(ctx, writeWithin)
	defer cancel()
	text, err := r.client.GetDel(ctx, r.sessionKey(id)).Bytes()
	var s auth.Session
	switch {
	case errors.Is(err, redis.Nil):
		return nil
	case err != nil:
		return err
	case json.Unmarshal(text, &s) != nil:
		return nil
	}
	return r.client.ZRem(ctx, r.holderKey(holderOf(&s)), hex.EncodeToString(id[:])).Err()
}
