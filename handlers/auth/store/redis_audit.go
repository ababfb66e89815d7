package store

import (
	"context"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"sluice/handlers/auth"
)

// The audit log is one stream, whose ids Redis makes; the field "e" is the entry.

// appendAudit goes by Redis's clock, which its ids begin with.
func (r *redisShelf) appendAudit(ctx context.Context, text []byte, entries int, keep time.Duration) (id string, err error) {
	ctx, cancel := context.WithTimeout(ctx, writeWithin)
	defer cancel()
	key := r.ofAdmin("audit")
	id, err = r.client.XAdd(ctx, &redis.XAddArgs{Stream: key, MaxLen: int64(entries), Values: []any{"e", text}}).Result()
	if err != nil {
		return "", err
	}
	at, _, _ := strings.Cut(id, "-")
	if ms, err := strconv.ParseInt(at, 10, 64); err == nil && ms > keep.Milliseconds() {
		_ = r.client.XTrimMinID(ctx, key, strconv.FormatInt(ms-keep.Milliseconds(), 10)).Err() // done again with the next one
	}
	return id, nil
}

var streamID = regexp.MustCompile(`^[0-9]{1,15}-[0-9]{1,19}$`)

func (r *redisShelf) readAudit(ctx context.Context, before string, limit int, visit func(id string, text []byte) bool) error {
	ctx, cancel := context.WithTimeout(ctx, readWithin)
	defer cancel()
	to := "+"
	if before != "" {
		if !streamID.MatchString(before) {
			return auth.ErrCursor
		}
		to = "(" + before
	}
	found, err := r.client.XRevRangeN(ctx, r.ofAdmin("audit"), to, "-", int64(limit)).Result()
	if err != nil {
		return err
	}
	for _, m := range found {
		text, _ := m.Values["e"].(string) // one that cannot be read is told as such
		if !visit(m.ID, []byte(text)) {
			return nil
		}
	}
	return nil
}
