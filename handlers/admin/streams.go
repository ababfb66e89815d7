package admin

import (
	"cmp"
	"encoding/base64"
	"encoding/binary"
	"net/http"
	"slices"
	"time"
)

// Streams are the answers that run in this gateway.
type Streams interface {
	// Streams lists those that keep accepts. keep sees each for as long as it is called.
	Streams(keep func(*Stream) bool) []Stream
	// Stream is one by its id, with its attempts.
	Stream(id string) (Stream, bool)
	// Kill ends one, and does not wait for its end. It returns false when no such answer runs.
	Kill(id string) bool
}

// Stream is an answer that runs.
type Stream struct {
	ID, Op, Model, Target, Transport, State, Client string
	Key, KeyName, Org, Team, User                   string
	Whole                                           bool // it comes in one piece
	Start                                           time.Time
	TTFT, LastToken                                 time.Duration // since Start; 0: no content yet
	Blocked                                         time.Duration // that the client has been taking the last write
	Place                                           int           // in the line for the model
	Attempts, Heartbeats                            int64
	Input, Cached, Output, Reasoning                int64
	Estimated                                       bool
	Reserved, Money                                 int64 // tokens; nano-dollars so far
	Tries                                           []Try // of Stream only
}

// Try is one attempt of an answer at a target.
type Try struct {
	Target     string
	Begin, End time.Duration // since the start of the answer
	Outcome    string        // "ok", or what went wrong; "" while it runs
	Status     int           // the upstream's HTTP status; 0: there was none
	Message    string
}

type tryJSON struct {
	Target  string `json:"target"`
	Begin   millis `json:"begin_ms"` // since the start of the answer
	Took    millis `json:"took_ms"`
	Outcome string `json:"outcome"` // "running" while it runs
	Status  *int   `json:"status"`
	Message string `json:"message,omitempty"`
}

func triesJSON(tries []Try) []tryJSON {
	out := []tryJSON{}
	for _, t := range tries {
		j := tryJSON{Target: t.Target, Begin: millis(t.Begin), Took: millis(t.End - t.Begin), Outcome: cmp.Or(t.Outcome, "running"), Message: t.Message}
		if t.Status != 0 {
			j.Status = &t.Status
		}
		out = append(out, j)
	}
	return out
}

// streamJSON has null where nothing is known yet.
type streamJSON struct {
	ID        string    `json:"id"`
	Node      string    `json:"node"`
	Op        string    `json:"op"`
	State     string    `json:"state"`
	Model     string    `json:"model"`
	Target    string    `json:"target,omitempty"`
	Transport string    `json:"transport"`
	Stream    bool      `json:"stream"`
	Key       string    `json:"key"`
	KeyName   string    `json:"key_name,omitempty"`
	Org       string    `json:"org,omitempty"`
	Team      string    `json:"team,omitempty"`
	User      string    `json:"user,omitempty"`
	Client    string    `json:"client"`
	Started   time.Time `json:"started"`
	Age       millis    `json:"age_ms"`
	TTFT      *millis   `json:"ttft_ms"`
	Idle      *millis   `json:"idle_ms"` // since the last content
	Blocked   *millis   `json:"blocked_ms"`
	Place     int       `json:"queue_position,omitempty"`
	Attempts  int64     `json:"attempts"`
	Beats     int64     `json:"heartbeats"`
	Input     *int64    `json:"input_tokens"`
	Cached    int64     `json:"cached_tokens"`
	Output    int64     `json:"output_tokens"`
	Reasoning int64     `json:"reasoning_tokens"`
	Estimated bool      `json:"estimated"`
	PerSecond *float64  `json:"tokens_per_second"`
	Reserved  int64     `json:"reserved_tokens"`
	Cost      usd       `json:"cost_usd"`
	Tries     []tryJSON `json:"tries,omitempty"`
}

func (s *server) streamJSON(x *Stream, now time.Time) streamJSON {
	age := max(now.Sub(x.Start), 0)
	out := streamJSON{
		ID: x.ID, Node: s.opt.System.Node, Op: x.Op, State: x.State, Model: x.Model, Target: x.Target, Transport: x.Transport, Stream: !x.Whole,
		Key: x.Key, KeyName: x.KeyName, Org: x.Org, Team: x.Team, User: x.User, Client: x.Client, Started: x.Start.UTC(), Age: millis(age),
		TTFT: some(x.TTFT), Blocked: some(x.Blocked), Place: x.Place, Attempts: x.Attempts, Beats: x.Heartbeats,
		Cached: x.Cached, Output: x.Output, Reasoning: x.Reasoning, Estimated: x.Estimated, Reserved: x.Reserved, Cost: usd(x.Money),
		PerSecond: perSecond(x.Output, x.LastToken-x.TTFT),
	}
	if x.TTFT > 0 {
		out.Idle = some(age - x.LastToken)
	}
	if x.Input > 0 {
		out.Input = &x.Input
	}
	return out
}

// perSecond is how many tokens came in a second after the first one; nil when too few have.
func perSecond(tokens int64, took time.Duration) *float64 {
	if tokens < 2 || took < time.Millisecond {
		return nil
	}
	v := float64(int64(float64(tokens-1)/took.Seconds()*10)) / 10
	return &v
}

// streamList is a page of answers, oldest first, and counts of all that run.
type streamList struct {
	Node string       `json:"node"`
	Data []streamJSON `json:"data"`
	Next string       `json:"next,omitempty"`
	// Running counts all answers, Matching those that the filters let through.
	Running     int            `json:"running"`
	Matching    int            `json:"matching"`
	ByState     map[string]int `json:"by_state"` // of all
	ByTransport map[string]int `json:"by_transport"`
}

var streamFilters = []string{"key", "org", "team", "user", "model", "target", "state", "transport", "op"}

func (s *server) streamRoutes() []route {
	return []route{
		{method: http.MethodGet, path: "/streams", role: viewer, query: append([]string{"limit", "cursor"}, streamFilters...), handle: s.listStreams},
		{method: http.MethodGet, path: "/streams/{id}", role: viewer, handle: s.getStream},
		{method: http.MethodDelete, path: "/streams/{id}", role: admin, audit: true, handle: s.killStream},
	}
}

const (
	usualPage = 100
	mostPage  = 1_000
)

func (s *server) listStreams(c *call) error {
	if s.opt.Streams == nil {
		return notFound("This gateway does not tell of its streams.")
	}
	limit, err := c.limit(usualPage, mostPage)
	if err != nil {
		return err
	}
	after, err := readSpot(c.query("cursor"))
	if err != nil {
		return err
	}
	out := streamList{Node: s.opt.System.Node, Data: []streamJSON{}, ByState: map[string]int{}, ByTransport: map[string]int{}}
	want := c.filters(streamFilters)
	rows := s.opt.Streams.Streams(func(x *Stream) bool {
		out.Running++
		out.ByState[x.State]++
		out.ByTransport[x.Transport]++
		if !want.let(x.Key, x.Org, x.Team, x.User, x.Model, x.Target, x.State, x.Transport, x.Op) {
			return false
		}
		out.Matching++
		return after == spot{} || after.compare(spotOf(x)) < 0
	})
	slices.SortFunc(rows, func(a, b Stream) int { return spotOf(&a).compare(spotOf(&b)) })
	if len(rows) > limit {
		rows = rows[:limit]
		out.Next = spotOf(&rows[limit-1]).String()
	}
	now := s.opt.Now()
	for i := range rows {
		out.Data = append(out.Data, s.streamJSON(&rows[i], now))
	}
	return c.reply(http.StatusOK, out)
}

func (s *server) getStream(c *call) error {
	x, err := s.stream(c)
	if err != nil {
		return err
	}
	out := s.streamJSON(&x, s.opt.Now())
	out.Tries = triesJSON(x.Tries)
	return c.reply(http.StatusOK, out)
}

func (s *server) stream(c *call) (x Stream, err error) {
	ok := false
	if s.opt.Streams != nil {
		x, ok = s.opt.Streams.Stream(c.path("id"))
	}
	if !ok {
		err = notFound("No answer %q runs on this gateway. It may have ended: look under %s/requests.", c.path("id"), Prefix)
	}
	return x, err
}

// killStream ends an answer: its client is told, its upstream is left, and what was
// delivered is paid. The reply does not wait for that.
func (s *server) killStream(c *call) error {
	x, err := s.stream(c)
	if err != nil {
		return err
	}
	before := s.streamJSON(&x, s.opt.Now())
	c.changed("stream "+x.ID, before, nil)
	if !s.opt.Streams.Kill(x.ID) {
		return notFound("The answer %q has just ended.", x.ID)
	}
	before.State = "ending"
	return c.reply(http.StatusAccepted, before)
}

// filter is what values must be; "" lets any pass.
type filter []string

// filters reads parameters.
func (c *call) filters(names []string) (f filter) {
	for _, name := range names {
		f = append(f, c.query(name))
	}
	return f
}

// let holds the values against the parameters, in the order of their names.
func (f filter) let(values ...string) bool {
	for i, v := range values {
		if f[i] != "" && f[i] != v {
			return false
		}
	}
	return true
}

// spot is a place in the order of answers by their start.
type spot struct {
	at int64 // unix nanoseconds
	id string
}

func spotOf(x *Stream) spot { return spot{x.Start.UnixNano(), x.ID} }

func (s spot) compare(o spot) int { return cmp.Or(cmp.Compare(s.at, o.at), cmp.Compare(s.id, o.id)) }

func (s spot) String() string {
	return base64.RawURLEncoding.EncodeToString(append(binary.BigEndian.AppendUint64(nil, uint64(s.at)), s.id...))
}

func readSpot(text string) (spot, error) {
	if text == "" {
		return spot{}, nil
	}
	b, err := base64.RawURLEncoding.DecodeString(text)
	if err != nil || len(b) < 9 {
		return spot{}, badField("cursor", "The cursor is none of ours.")
	}
	return spot{int64(binary.BigEndian.Uint64(b)), string(b[8:])}, nil
}
