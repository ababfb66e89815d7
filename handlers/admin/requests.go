package admin

import (
	"net/http"
	"strconv"
	"time"
)

// Requests are the answers that this gateway ended last, as far as it remembers them.
type Requests interface {
	// Requests visits them, newest first, below the number before (0: from the newest), until
	// visit returns false. refused asks for the requests that came to no answer instead.
	Requests(refused bool, before uint64, visit func(*Request) bool)
	// Request is one by its id, an answer or a refusal.
	Request(id string) (Request, bool)
}

// Request is an answer that has ended, or a request that came to none: Op is "" then, and
// Model the route.
type Request struct {
	Stream
	Number               uint64 // grows with time
	Took                 time.Duration
	Outcome              string // "ok", or the name of the end
	Status               int
	Finish               string // finish reason
	Limit                string // that was over
	Code, Message        string // of the error that the client was told
	Malformed, Unstopped int64
	Repaired             int64
}

type requestJSON struct {
	Number    uint64    `json:"number"`
	ID        string    `json:"id"`
	Node      string    `json:"node"`
	Op        string    `json:"op,omitempty"`
	Route     string    `json:"route,omitempty"` // of a request that came to no answer
	Model     string    `json:"model,omitempty"`
	Target    string    `json:"target,omitempty"`
	Transport string    `json:"transport,omitempty"`
	Stream    bool      `json:"stream"`
	Key       string    `json:"key,omitempty"`
	KeyName   string    `json:"key_name,omitempty"`
	Org       string    `json:"org,omitempty"`
	Team      string    `json:"team,omitempty"`
	User      string    `json:"user,omitempty"`
	Client    string    `json:"client"`
	Started   time.Time `json:"started"`
	Took      millis    `json:"took_ms"`
	TTFT      *millis   `json:"ttft_ms"`
	Outcome   string    `json:"outcome"`
	Status    int       `json:"status"`
	Finish    string    `json:"finish_reason,omitempty"`
	Limit     string    `json:"limit,omitempty"`
	Code      string    `json:"error_code,omitempty"`
	Message   string    `json:"error_message,omitempty"`
	Input     int64     `json:"input_tokens"`
	Cached    int64     `json:"cached_tokens"`
	Output    int64     `json:"output_tokens"`
	Reasoning int64     `json:"reasoning_tokens"`
	Estimated bool      `json:"estimated"`
	PerSecond *float64  `json:"tokens_per_second"`
	Reserved  int64     `json:"reserved_tokens"`
	Cost      usd       `json:"cost_usd"`
	Attempts  int64     `json:"attempts"`
	Beats     int64     `json:"heartbeats"`
	Malformed int64     `json:"malformed_events"`
	Repaired  int64     `json:"repaired_events"`
	Unstopped int64     `json:"unstopped_tokens"`
	Tries     []tryJSON `json:"tries"`
}

func (s *server) requestJSON(x *Request) requestJSON {
	out := requestJSON{
		Number: x.Number, ID: x.ID, Node: s.opt.System.Node, Op: x.Op, Model: x.Model, Target: x.Target, Transport: x.Transport, Stream: !x.Whole,
		Key: x.Key, KeyName: x.KeyName, Org: x.Org, Team: x.Team, User: x.User, Client: x.Client, Started: x.Start.UTC(), Took: millis(x.Took), TTFT: some(x.TTFT),
		Outcome: x.Outcome, Status: x.Status, Finish: x.Finish, Limit: x.Limit, Code: x.Code, Message: x.Message,
		Input: x.Input, Cached: x.Cached, Output: x.Output, Reasoning: x.Reasoning, Estimated: x.Estimated, PerSecond: perSecond(x.Output, x.LastToken-x.TTFT),
		Reserved: x.Reserved, Cost: usd(x.Money), Attempts: x.Attempts, Beats: x.Heartbeats,
		Malformed: x.Malformed, Repaired: x.Repaired, Unstopped: x.Unstopped, Tries: triesJSON(x.Tries),
	}
	if x.Op == "" {
		out.Route, out.Model, out.Stream = x.Model, "", false
	}
	return out
}

var requestFilters = []string{"key", "org", "team", "user", "model", "target", "transport", "op", "outcome", "finish", "id"}

func (s *server) requestRoutes() []route {
	return []route{
		{method: http.MethodGet, path: "/requests", role: viewer, handle: s.listRequests,
			query: append([]string{"limit", "cursor", "start", "end", "status", "refused", "format"}, requestFilters...)},
		{method: http.MethodGet, path: "/requests/{id}", role: viewer, handle: s.getRequest},
	}
}

// requestQuery is which rows of the ring are asked for.
type requestQuery struct {
	filter
	start, end  time.Time
	status, top int // status from it up to below top
	refused     bool
	before      uint64
	limit       int
}

func (c *call) requestQuery() (q requestQuery, err error) {
	q.filter, q.top = c.filters(requestFilters), 1000
	if q.limit, err = c.limit(usualPage, mostPage); err != nil {
		return q, err
	}
	if q.start, q.end, err = c.period(10 * 366 * 24 * time.Hour); err != nil {
		return q, err
	}
	if c.query("end") == "" {
		q.end = q.end.Add(time.Hour) // rows that end while they are read, and clocks that were set back
	}
	if text := c.query("cursor"); text != "" {
		if q.before, err = strconv.ParseUint(text, 10, 64); err != nil || q.before == 0 {
			return q, badField("cursor", "The cursor is none of ours.")
		}
	}
	switch text := c.query("refused"); text {
	case "", "false":
	case "true":
		q.refused = true
	default:
		return q, badField("refused", "refused must be true or false.")
	}
	return q, q.readStatus(c.query("status"))
}

// readStatus takes a status, or a class of them: 5xx.
func (q *requestQuery) readStatus(text string) error {
	if text == "" {
		return nil
	}
	n, err := strconv.Atoi(text)
	if len(text) == 3 && text[1:] == "xx" {
		n, err = strconv.Atoi(text[:1])
		n *= 100
		q.top = n + 100
	} else {
		q.top = n + 1
	}
	if q.status = n; err != nil || n < 100 || n > 599 {
		return badField("status", "status must be a number such as 429, or a class such as 5xx.")
	}
	return nil
}

func (q *requestQuery) match(x *Request) bool {
	return !x.Start.Before(q.start) && x.Start.Before(q.end) && x.Status >= q.status && x.Status < q.top &&
		q.let(x.Key, x.Org, x.Team, x.User, x.Model, x.Target, x.Transport, x.Op, x.Outcome, x.Finish, x.ID)
}

func (s *server) listRequests(c *call) error {
	if s.opt.Requests == nil {
		return notFound("This gateway remembers no requests.")
	}
	q, err := c.requestQuery()
	if err != nil {
		return err
	}
	asCSV, err := c.wantsCSV()
	if err != nil {
		return err
	}
	out := list[requestJSON]{Data: []requestJSON{}}
	s.opt.Requests.Requests(q.refused, q.before, func(x *Request) bool {
		if !q.match(x) {
			return true
		}
		if len(out.Data) == q.limit {
			out.Next = strconv.FormatUint(out.Data[q.limit-1].Number, 10)
			return false
		}
		out.Data = append(out.Data, s.requestJSON(x))
		return true
	})
	if asCSV {
		return c.requestsCSV(out.Data)
	}
	return c.reply(http.StatusOK, out)
}

func (c *call) requestsCSV(rows []requestJSON) error {
	t := c.csv("requests", "started", "id", "outcome", "status", "op", "model", "target", "transport", "key", "key_name", "org", "team", "user", "client",
		"took_ms", "ttft_ms", "input_tokens", "cached_tokens", "output_tokens", "reasoning_tokens", "estimated", "cost_usd", "attempts", "finish_reason", "limit", "error_code", "error_message")
	for i := range rows {
		r := &rows[i]
		ttft := ""
		if r.TTFT != nil {
			ttft = r.TTFT.String()
		}
		t.time(r.Started).text(r.ID).text(r.Outcome).number(int64(r.Status)).text(r.Op).text(r.Model + r.Route).text(r.Target).text(r.Transport).
			text(r.Key).text(r.KeyName).text(r.Org).text(r.Team).text(r.User).text(r.Client).exact(r.Took.String()).exact(ttft).
			number(r.Input).number(r.Cached).number(r.Output).number(r.Reasoning).exact(strconv.FormatBool(r.Estimated)).exact(r.Cost.String()).
			number(r.Attempts).text(r.Finish).text(r.Limit).text(r.Code).text(r.Message)
		if err := t.next(); err != nil {
			return err
		}
	}
	return t.done()
}

func (s *server) getRequest(c *call) error {
	if s.opt.Requests != nil {
		if x, ok := s.opt.Requests.Request(c.path("id")); ok {
			return c.reply(http.StatusOK, s.requestJSON(&x))
		}
	}
	return notFound("This gateway remembers no request %q. It may still run: look under %s/streams.", c.path("id"), Prefix)
}
