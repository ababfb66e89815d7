package ratelimit

import (
	"crypto/sha1"
	_ "embed"
	"encoding/hex"
	"strings"
)

var (
	//go:embed lib.lua
	libLua string
	//go:embed list.lua
	listLua string
	//go:embed part_refill.lua
	refillLua string
	//go:embed part_lasting.lua
	lastingLua string
	//go:embed part_finish.lua
	finishLua string
	//go:embed reserve.lua
	reserveLua string
	//go:embed extend.lua
	extendLua string
	//go:embed settle.lua
	settleLua string
	//go:embed renew.lua
	renewLua string
	//go:embed sweep.lua
	sweepLua string
	//go:embed turn.lua
	turnLua string
	//go:embed charge.lua
	chargeLua string
)

// clockLine is the only place where the scripts read a clock.
const clockLine = "local time = redis.call('TIME')"

// redisScript is a text that Redis runs, known to it by its SHA-1 once it has seen it.
type redisScript struct{ text, sha string }

// redisScripts are what the limiter does in Redis.
type redisScripts struct{ reserve, extend, settle, renew, sweep, turn, charge *redisScript }

// newRedisScripts puts the parts of the scripts together. ledgerLua defines ledger_post and
// ledger_used; clock replaces clockLine if it is not empty.
func newRedisScripts(ledgerLua, clock string) redisScripts {
	lib := libLua
	if clock != "" {
		lib = strings.Replace(lib, clockLine, clock, 1)
	}
	parts := strings.NewReplacer("--#refill\n", refillLua, "--#lasting\n", lastingLua)
	finish := strings.NewReplacer("--#finish\n", finishLua)
	whole := func(texts ...string) *redisScript {
		text := parts.Replace(finish.Replace(lib + strings.Join(texts, "")))
		sum := sha1.Sum([]byte(text))
		return &redisScript{text: text, sha: hex.EncodeToString(sum[:])}
	}
	return redisScripts{
		reserve: whole(reserveLua), extend: whole(listLua, extendLua), charge: whole(listLua, chargeLua),
		settle: whole(ledgerLua, settleLua), sweep: whole(ledgerLua, sweepLua),
		renew: whole(renewLua), turn: whole(turnLua),
	}
}

// redisCall is one script's run. Who made it reads the outcome when it is done.
type redisCall struct {
	script *redisScript
	keys   []string
	args   []any // strings, []byte, integers
	whole  bool  // send the text: Redis does not know it

	reply any
	err   error
}

// numbers is the reply as integers; false when it is something else.
func (c *redisCall) numbers() ([]int64, bool) {
	list, ok := c.reply.([]any)
	if !ok {
		return nil, false
	}
	out := make([]int64, len(list))
	for i, v := range list {
		if out[i], ok = v.(int64); !ok {
			return nil, false
		}
	}
	return out, true
}
