package admin

import (
	"context"
	"net/http"
	"strconv"
	"time"

	"sluice/ratelimit/ledger"
)

// ledgerJSON is one row of the ledger.
type ledgerJSON struct {
	ID        string    `json:"id"`
	Started   time.Time `json:"started"`
	Posted    time.Time `json:"posted"`
	Took      millis    `json:"took_ms"`
	TTFT      *millis   `json:"ttft_ms"`
	Org       string    `json:"org,omitempty"`
	Team      string    `json:"team,omitempty"`
	User      string    `json:"user,omitempty"`
	Key       string    `json:"key,omitempty"`
	KeyName   string    `json:"key_name,omitempty"`
	Op        string    `json:"op"`
	Transport string    `json:"transport,omitempty"`
	Model     string    `json:"model"`
	Target    string    `json:"target,omitempty"`
	Outcome   string    `json:"outcome"` // "lost" when its gateway died
	Requests  int64     `json:"requests"`
	Input     int64     `json:"input_tokens"`
	Cached    int64     `json:"cached_tokens"`
	Output    int64     `json:"output_tokens"`
	Reasoning int64     `json:"reasoning_tokens"`
	Frames    int64     `json:"frames"`
	Estimated bool      `json:"estimated"`
	Cost      usd       `json:"cost_usd"`
	Reserved  int64     `json:"reserved_tokens"`
	Attempts  int64     `json:"attempts"`
}

func (s *server) ledgerJSON(r *ledger.Row) ledgerJSON {
	return ledgerJSON{
		ID: r.ID, Started: r.Start.UTC(), Posted: r.Posted.UTC(), Took: millis(r.Total), TTFT: some(r.TTFT), Org: r.Org, Team: r.Team, User: r.User,
		Key: r.Key, KeyName: s.keyName(r.Key), Op: r.Op, Transport: r.Transport, Model: r.Model, Target: r.Target, Outcome: r.End,
		Requests: r.Requests, Input: r.Input, Cached: r.Cached, Output: r.Output, Reasoning: r.Reasoning, Frames: r.Frames, Estimated: r.Estimated,
		Cost: usd(r.Money), Reserved: r.Reserved, Attempts: r.Attempts,
	}
}

func (s *server) ledgerRoutes() []route {
	return []route{{method: http.MethodGet, path: "/ledger", role: viewer, handle: s.ledgerRows,
		query: []string{"start", "end", "org", "team", "user", "key", "model", "target", "id", "outcome", "limit", "cursor", "format"}}}
}

// mostRows bounds what is written as CSV at once. It is as many as are kept by default.
const mostRows = 10_000

func (s *server) ledgerRows(c *call) error {
	if s.opt.Ledger == nil {
		return notFound("This gateway keeps no usage records.")
	}
	f, err := c.ledgerFilter()
	if err != nil {
		return err
	}
	asCSV, err := c.wantsCSV()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(c.r.Context(), ledgerTime)
	defer cancel()
	page, err := s.opt.Ledger.Rows(ctx, f)
	if err != nil {
		return ledgerFault(err)
	}
	if asCSV {
		return s.ledgerCSV(ctx, c, f, page)
	}
	out := list[ledgerJSON]{Data: []ledgerJSON{}, Next: page.Next}
	for i := range page.Rows {
		out.Data = append(out.Data, s.ledgerJSON(&page.Rows[i]))
	}
	return c.reply(http.StatusOK, out)
}

func (c *call) ledgerFilter() (f ledger.Filter, err error) {
	if c.query("start") != "" || c.query("end") != "" {
		if f.Since, f.Until, err = c.period(usualUsage); err != nil {
			return f, err
		}
	}
	f.Org, f.Team, f.User, f.Key = c.query("org"), c.query("team"), c.query("user"), c.query("key")
	f.Model, f.Target, f.ID, f.End = c.query("model"), c.query("target"), c.query("id"), c.query("outcome")
	f.AllOrgs, f.Cursor = f.Org == "", c.query("cursor")
	f.Limit, err = c.limit(usualPage, mostPage)
	return f, err
}

// ledgerCSV writes all pages from the one that was read. Without a limit they are all rows.
func (s *server) ledgerCSV(ctx context.Context, c *call, f ledger.Filter, page ledger.Page) error {
	most := f.Limit
	if c.query("limit") == "" {
		most, f.Limit = mostRows, mostPage
	}
	t := c.csv("ledger", "started", "posted", "id", "outcome", "op", "model", "target", "transport", "key", "key_name", "org", "team", "user",
		"took_ms", "ttft_ms", "requests", "input_tokens", "cached_tokens", "output_tokens", "reasoning_tokens", "frames", "estimated", "cost_usd", "reserved_tokens", "attempts")
	for n := 0; ; {
		for i := range page.Rows {
			if n++; n > most {
				return t.done()
			}
			if err := s.ledgerRow(t, &page.Rows[i]); err != nil {
				return err
			}
		}
		if page.Next == "" || n >= most {
			return t.done()
		}
		f.Cursor = page.Next
		var err error
		if page, err = s.opt.Ledger.Rows(ctx, f); err != nil {
			return err
		}
	}
}

func (s *server) ledgerRow(t *table, r *ledger.Row) error {
	ttft := ""
	if r.TTFT > 0 {
		ttft = millis(r.TTFT).String()
	}
	t.time(r.Start).time(r.Posted).text(r.ID).text(r.End).text(r.Op).text(r.Model).text(r.Target).text(r.Transport).
		text(r.Key).text(s.keyName(r.Key)).text(r.Org).text(r.Team).text(r.User).exact(millis(r.Total).String()).exact(ttft).
		number(r.Requests).number(r.Input).number(r.Cached).number(r.Output).number(r.Reasoning).number(r.Frames).exact(strconv.FormatBool(r.Estimated)).
		exact(usd(r.Money).String()).number(r.Reserved).number(r.Attempts)
	return t.next()
}
