package ratelimit

import (
	"reflect"
	"testing"
)

func TestReserveReply(t *testing.T) {
	floats := func(list ...int64) string { return string(appendFloats(nil, list...)) }
	part := redisPart{buckets: []int{1, 0, 2}, needs: []int64{5, 7, 1}}
	for name, c := range map[string]struct {
		reply   any
		verdict int64
		levels  []int64 // nil: it makes no sense
	}{
		"taken":            {[]any{floats(granted, 100, 9), floats(20, 3, 90, 1000), floats(-4e15, 0, 100)}, granted, []int64{-4e15, 20, 9}},
		"taken once more":  {[]any{floats(restored, 100, 9), floats(20, 3, 90, 1000), floats(30, 0, 100)}, restored, []int64{30, 20, 9}},
		"taken before":     {[]any{floats(grantedBefore, 100, 9), floats(20, 3, 90, 1000), floats(30, 0, 100)}, granted, []int64{37, 25, 10}},
		"denied":           {[]any{floats(denied, 100, -1), floats(20, 3, 90, 1000), floats(30, 0, 100)}, denied, []int64{37, 25, 0}},
		"a bucket missing": {[]any{floats(granted, 100, 9), floats(20, 3, 90, 1000)}, granted, nil},
		"no places":        {[]any{floats(granted, 100), floats(20, 3, 90, 1000), floats(30, 0, 100)}, granted, nil},
		"a short bucket":   {[]any{floats(granted, 100, 9), floats(20, 3), floats(30, 0, 100)}, granted, nil},
		"a number":         {[]any{floats(granted, 100, 9), int64(20), floats(30, 0, 100)}, granted, nil},
		"a short head":     {[]any{floats(granted)}, -1, nil},
		"no head":          {[]any{int64(1), int64(2)}, -1, nil},
		"empty":            {[]any{}, -1, nil},
		"nothing":          {nil, -1, nil},
		"one number":       {int64(1), -1, nil},
	} {
		call := &redisCall{reply: c.reply}
		reply, ok := call.reserved()
		if ok != (c.verdict >= 0) || ok && (reply.verdict != c.verdict || reply.now != 100) {
			t.Errorf("%s: %+v, %v", name, reply, ok)
		}
		states := make([]redisState, 3)
		if !ok || !part.read(states, &reply) {
			if c.levels != nil {
				t.Errorf("%s: makes no sense", name)
			}
			continue
		}
		if got := []int64{states[0].level, states[1].level, states[2].level}; !reflect.DeepEqual(got, c.levels) {
			t.Errorf("%s: %d left, want %d", name, got, c.levels)
		}
		if s := states[1]; s.at != 90 || s.fraction != 3 || s.now != 100 || !s.told {
			t.Errorf("%s: %+v", name, s)
		}
	}
}
