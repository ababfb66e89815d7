package store

import (
	"context"
	_ "embed"
	"fmt"
	"strconv"

	"github.com/redis/go-redis/v9"
)

//go:embed overrides.lua
var overridesLua string

var writeOverrides = redis.NewScript(overridesLua)

// The overrides of the configuration are one hash: version, tag and text.

func (r *redisShelf) readBoard(ctx context.Context, tag string) (text []byte, same bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, readWithin)
	defer cancel()
	key := r.ofAdmin("overrides")
	now, err := r.client.HGet(ctx, key, "tag").Result()
	if err == nil && now == tag {
		return nil, true, nil
	}
	if err == nil {
		text, err = r.client.HGet(ctx, key, "text").Bytes()
	}
	switch {
	case err == redis.Nil:
		return nil, tag == "", nil
	case err != nil:
		return nil, false, fmt.Errorf("read the overrides of the configuration: %w", err)
	}
	return text, false, nil
}

// writeBoard is tried once more when it got no answer: doing it twice is doing it once.
func (r *redisShelf) writeBoard(ctx context.Context, was, is uint64, tag string, text []byte) error {
	ctx, cancel := context.WithTimeout(ctx, writeWithin)
	defer cancel()
	keys := []string{r.ofAdmin("overrides")}
	args := []any{strconv.FormatUint(was, 10), strconv.FormatUint(is, 10), tag, text}
	done, err := writeOverrides.Run(ctx, r.client, keys, args...).Int64()
	if err != nil && ctx.Err() == nil {
		done, err = writeOverrides.Run(ctx, r.client, keys, args...).Int64()
	}
	switch {
	case err != nil:
		return fmt.Errorf("write the overrides of the configuration: %w", err)
	case done == 0:
		return ErrConflict
	}
	return nil
}
