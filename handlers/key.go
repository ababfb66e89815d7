package handlers

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"slices"
	"time"

	"github.com/labstack/echo/v4"

	"sluice/handlers/auth"
	"sluice/providers"
	"sluice/ratelimit"
	"sluice/ratelimit/ledger"
)

// KeyReport is what GET /key tells a caller of its key, and of nobody else's. It is encoded
// as JSON.
type KeyReport struct {
	Object     string            `json:"object"` // "key"
	ID         string            `json:"id"`     // in buckets and books; of a key of the configuration its name
	Name       string            `json:"name"`
	Issued     bool              `json:"issued"` // false: it stands in the configuration
	Org        string            `json:"org,omitempty"`
	Team       string            `json:"team,omitempty"`
	User       string            `json:"user,omitempty"`
	Groups     []string          `json:"groups"`
	Metadata   map[string]string `json:"metadata"`
	Models     []string          `json:"models"` // patterns; none allows all, as of the next two
	Routes     []string          `json:"routes"`
	Transports []string          `json:"transports"`
	ExpiresAt  *int64            `json:"expires_at"` // unix seconds; null: never
	Limits     []usageLimit      `json:"limits"`
	Start      int64             `json:"start"` // of the usage, unix seconds
	End        int64             `json:"end"`
	GroupBy    []string          `json:"group_by"`
	Usage      []usageSum        `json:"usage"`
}

// key answers GET /key: what the caller's key is for, what is left of its limits, and what
// it has used. The parameters are those of GET /usage.
func (s *Server) key(c echo.Context) error {
	who, err := s.opt.Auth.Authenticate(c.Request().Header)
	if err != nil {
		return err
	}
	report, err := s.KeyReport(c.Request().Context(), who, c.RealIP(), c.QueryParams())
	if err != nil {
		return err
	}
	c.Response().Header().Set("Cache-Control", "no-store")
	return c.JSON(http.StatusOK, report)
}

// KeyReport tells of the key that who calls with. remote is the address that limits of
// addresses are shown for, "" for none; query has the parameters of GET /usage. Errors are
// *providers.Error, or those of the limiter.
func (s *Server) KeyReport(ctx context.Context, who auth.Principal, remote string, query url.Values) (*KeyReport, error) {
	q, err := usageQuery(query, time.Now())
	if err != nil {
		return nil, err
	}
	if q.Model != "" && !s.allows(&who, q.Model) {
		return nil, noSuchModel(q.Model)
	}
	out := newKeyReport(&who)
	out.Start, out.End = q.Since.Unix(), q.Until.Unix()
	for _, g := range q.By {
		out.GroupBy = append(out.GroupBy, g.String())
	}
	if s.opt.Quota == nil {
		return out, nil
	}
	q.Model = s.opt.Quota.ModelOf(q.Model)
	levels, err := s.levelsOf(ctx, &who, remote, q.Model)
	if err != nil {
		return nil, err
	}
	for i := range levels {
		out.Limits = append(out.Limits, limitNow(&levels[i]))
	}
	q.Org, q.Key = who.Org, who.Key
	sums, err := s.sums(ctx, q)
	out.Usage = append(out.Usage, sums...)
	return out, err
}

func newKeyReport(who *auth.Principal) *KeyReport {
	may := who.May
	if may == nil {
		may = &auth.Permissions{}
	}
	out := &KeyReport{
		Object: "key", ID: who.Key, Name: who.Key, Issued: who.Name != "", Org: who.Org, Team: who.Team, User: who.User,
		Groups: listed(who.Groups), Metadata: who.Metadata, Models: listed(may.Models), Routes: listed(may.Routes), Transports: listed(may.Transports),
		Limits: []usageLimit{}, GroupBy: []string{}, Usage: []usageSum{},
	}
	if who.Name != "" {
		out.Name = who.Name
	}
	if out.Metadata == nil {
		out.Metadata = map[string]string{}
	}
	if !who.Expires.IsZero() {
		at := who.Expires.Unix()
		out.ExpiresAt = &at
	}
	return out
}

// listed is never null in JSON.
func listed(s []string) []string { return append([]string{}, s...) }

// maxPeeks bounds how many models with buckets of their own a report looks at.
const maxPeeks = 64

// levelsOf are the buckets that calls of a key take from: those of any call, and those of
// single models, as far as they are listed. With a model they are those of its calls.
func (s *Server) levelsOf(ctx context.Context, who *auth.Principal, remote, model string) ([]ratelimit.Level, error) {
	subject := func(model string) *ratelimit.Subject {
		return &ratelimit.Subject{Org: who.Org, Team: who.Team, User: who.User, Key: who.Key, Model: s.opt.Quota.ModelOf(model), IP: addressName(remote), Rules: who.Rules}
	}
	out, err := s.opt.Quota.Limiter.Peek(ctx, subject(model))
	if err != nil || model != "" {
		return out, err
	}
	type bucket struct{ id, name string }
	seen := map[bucket]bool{}
	for i := range out {
		seen[bucket{out[i].Rule.ID, out[i].Name}] = true
	}
	peeks := 0
	for _, m := range s.opt.Catalog.Models(ctx) {
		if peeks == maxPeeks || !who.AllowsModel(m.ID) || !slices.ContainsFunc(s.opt.Quota.Applies(nil, subject(m.ID)), func(b ratelimit.Bucket) bool {
			return b.Rule.Scope != ratelimit.Model && !seen[bucket{b.Rule.ID, b.Label()}]
		}) {
			continue
		}
		peeks++
		levels, err := s.opt.Quota.Limiter.Peek(ctx, subject(m.ID))
		if err != nil {
			return nil, err
		}
		for _, l := range levels {
			if at := (bucket{l.Rule.ID, l.Name}); !seen[at] && l.Rule.Scope != ratelimit.Model {
				seen[at] = true
				out = append(out, l)
			}
		}
	}
	return out, nil
}

// sums asks the ledger.
func (s *Server) sums(ctx context.Context, q ledger.Query) (out []usageSum, err error) {
	if s.opt.Quota.Ledger == nil {
		return nil, nil
	}
	ctx, cancel := context.WithTimeout(ctx, usageTime)
	defer cancel()
	sums, err := s.opt.Quota.Ledger.Usage(ctx, q)
	if errors.Is(err, ledger.ErrQuery) || len(sums) > maxUsage {
		return nil, providers.Invalid("start", "The answer would be too long. Ask for a shorter time, or for days instead of hours.")
	}
	if err != nil {
		return nil, &providers.Error{Kind: providers.Overloaded, Message: "The usage records cannot be read now. Try again in a moment.", Err: err}
	}
	for i := range sums {
		out = append(out, sumOf(&sums[i]))
	}
	return out, nil
}
