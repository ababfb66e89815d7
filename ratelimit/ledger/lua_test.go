package ledger

import (
	"fmt"
	"reflect"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"sluice/ratelimit/ratelimittest/redistest"
)

// harness calls what post.lua defines: KEYS[1] is a key of the slot, ARGV the prefix, the
// time in microseconds and the row.
func harness(r Retention, body string) *redis.Script {
	return redis.NewScript(r.Lua() + "\n" + body)
}

const (
	postBody = "ledger_post(ARGV[1], tonumber(ARGV[2]), ARGV[3])"
	usedBody = "return ledger_used(ARGV[1], 1, 20, 30, 2, 5000000000)"
)

func testRow(i int) Row {
	return Row{
		ID: "req-" + strconv.Itoa(i), Start: time.UnixMicro(1_700_000_000_123_456 + int64(i)).UTC(),
		TTFT: 123 * time.Millisecond, Total: 2*time.Second + 345*time.Microsecond, Org: "acme", Team: "red", User: "ann",
		Key: "laptop", Op: "chat", Transport: "sse", Model: "gpt-5", Target: "openai/gpt-5", Requests: 1, Input: 1000,
		Cached: 200, Output: 500, Reasoning: 50, Frames: 3, Estimated: i%2 == 1, Money: 4_000_000_123, Reserved: 2048,
		Attempts: 2, End: "ok",
	}
}

func TestLuaPost(t *testing.T) {
	client := redistest.Single(t).Client(nil)
	ctx := t.Context()
	script := harness(Retention{}, postBody)
	p := Shelf(Slot("sluice:", "acme"))
	hours := []int64{472222, 472222, 472222, 472223}
	for i, hour := range hours {
		row := testRow(i)
		if err := script.Run(ctx, client, []string{p}, p, hour*3_600_000_000+int64(i), Encode(nil, &row)).Err(); err != nil && err != redis.Nil {
			t.Fatal(err)
		}
	}
	entries := client.XRange(ctx, p+":rows", "-", "+").Val()
	if len(entries) != len(hours) {
		t.Fatalf("%d rows, want %d", len(entries), len(hours))
	}
	for i, e := range entries {
		got, err := decode([]byte(e.Values["r"].(string)))
		if want := testRow(i); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("row %d: %v\n got %+v\nwant %+v", i, err, got, want)
		}
		if want := strconv.FormatInt(hours[i]*3_600_000_000+int64(i), 10); e.Values["t"] != want {
			t.Errorf("row %d posted %v, want %s", i, e.Values["t"], want)
		}
	}
	for hour, times := range map[int64]int64{472222: 3, 472223: 1} {
		fields := client.HGetAll(ctx, p+":h:"+strconv.FormatInt(hour, 10)).Val()
		row := testRow(1)
		want := row.amounts()
		for i := range want {
			want[i] *= times
		}
		want[8] = times / 2 // of rows 0 to 2 the middle one is estimated
		if hour == 472223 {
			want[8] = 1
		}
		n := row.name()
		var got amounts
		got.read([]byte(fields[string(n.append(nil))]))
		if len(fields) != 1 || got != want {
			t.Errorf("hour %d: %d sums, %v, want %v", hour, len(fields), got, want)
		}
	}
	for _, key := range client.Keys(ctx, "*").Val() {
		if ttl := client.TTL(ctx, key).Val(); ttl < 89*24*time.Hour {
			t.Errorf("%s expires in %v", key, ttl)
		}
	}
}

func TestLuaUsed(t *testing.T) {
	client := redistest.Single(t).Client(nil)
	row := testRow(1)
	row.Reasoning, row.Cached = 50, 5
	text, err := harness(Retention{}, usedBody).Run(t.Context(), client, []string{"k"}, Encode(nil, &row)).Text()
	if err != nil {
		t.Fatal(err)
	}
	got, err := decode([]byte(text))
	want := row
	want.Requests, want.Input, want.Cached, want.Output, want.Reasoning, want.Frames, want.Money = 1, 20, 5, 30, 30, 2, 5_000_000_000
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%v\n got %+v\nwant %+v", err, got, want)
	}
}

// TestLuaBounds posts more rows and names than are kept.
func TestLuaBounds(t *testing.T) {
	client := redistest.Single(t).Client(nil)
	ctx := t.Context()
	script := harness(Retention{Rows: 200, Names: 10}, postBody)
	p := Shelf(Slot("sluice:", ""))
	const rows, hour = 1000, 480_000
	for i := range rows {
		row := testRow(i)
		row.Model = fmt.Sprint("model-", i%50)
		row.Key = fmt.Sprint("key-", i%30)
		if err := script.Run(ctx, client, []string{p}, p, int64(hour*3_600_000_000), Encode(nil, &row)).Err(); err != nil && err != redis.Nil {
			t.Fatal(err)
		}
	}
	if n := client.XLen(ctx, p+":rows").Val(); n < 200 || n > 300 {
		t.Errorf("%d rows are kept", n)
	}
	var calls int64
	kinds := map[string]int{}
	fields := client.HGetAll(ctx, p+":h:480000").Val()
	for field, sum := range fields {
		var a amounts
		a.read([]byte(sum))
		calls += a[0]
		n, err := decodeName(field)
		if err != nil {
			t.Error(err)
		}
		kinds[n.model[:1]+n.key[:1]]++
	}
	if calls != rows || kinds["mk"] != 10 || kinds["(k"] != 10 || kinds["(("] != 1 {
		t.Errorf("%d calls in sums %v", calls, kinds)
	}
}

func TestLuaAmountsAreExact(t *testing.T) {
	client := redistest.Single(t).Client(nil)
	ctx := t.Context()
	script := harness(Retention{}, postBody)
	row := testRow(0)
	row.Money = 4_000_000_000_000_001
	for range 2 {
		if err := script.Run(ctx, client, []string{"p"}, "p", int64(1_700_000_000_000_001), Encode(nil, &row)).Err(); err != nil && err != redis.Nil {
			t.Fatal(err)
		}
	}
	for _, sum := range client.HGetAll(ctx, "p:h:472222").Val() {
		var a amounts
		if a.read([]byte(sum)); a[7] != 8_000_000_000_000_002 {
			t.Errorf("money %d", a[7])
		}
	}
}

// BenchmarkLua tells the server's time for one posting, beside that of a script that does nothing.
func BenchmarkLua(b *testing.B) {
	client := redistest.Single(b).Client(nil)
	ctx := b.Context()
	for name, body := range map[string]string{"post": postBody, "empty": ""} {
		b.Run(name, func(b *testing.B) {
			script := harness(Retention{}, body)
			row := testRow(0)
			data := Encode(nil, &row)
			p := Shelf(Slot("sluice:", "acme"))
			client.ConfigResetStat(ctx)
			for n := b.N; n > 0; n -= 100 {
				_, _ = client.Pipelined(ctx, func(pipe redis.Pipeliner) error {
					for i := range 100 {
						row.Model = "m" + strconv.Itoa(i)
						script.Eval(ctx, pipe, []string{p}, p, int64(1_700_000_000_000_000), data)
					}
					return nil
				})
			}
			for _, line := range strings.Split(client.Info(ctx, "commandstats").Val(), "\r\n") {
				if _, rest, ok := strings.Cut(line, "cmdstat_eval:"); ok {
					_, rest, _ = strings.Cut(rest, "usec_per_call=")
					us, _, _ := strings.Cut(rest, ",")
					f, _ := strconv.ParseFloat(us, 64)
					b.ReportMetric(f, "server-µs/op")
				}
			}
		})
	}
}
