package ledger

import (
	"fmt"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
)

// SetTime makes Post take this for Redis's time.
func (b *Redis) SetTime(now time.Time) {
	const line = "local t = redis.call('TIME')"
	text := b.keep.Lua() + postOnceLua
	if strings.Count(text, line) != 1 {
		panic("the script reads the time elsewhere")
	}
	b.script = redis.NewScript(strings.Replace(text, line, fmt.Sprintf("local t = {%d, %d}", now.Unix(), now.Nanosecond()/1000), 1))
}
