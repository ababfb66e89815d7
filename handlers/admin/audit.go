package admin

import (
	"context"
	"encoding/csv"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"strconv"
	"sync"
	"time"

	"sluice/handlers/auth"
)

func (s *server) auditRoutes() []route {
	return []route{
		{method: http.MethodGet, path: "/audit", role: viewer, query: []string{"before", "limit"}, handle: s.audit},
		{method: http.MethodGet, path: "/audit/export", role: viewer, query: []string{"format"}, handle: s.exportAudit},
	}
}

// auditWithin bounds the writing of one entry, whatever becomes of the request.
const auditWithin = 10 * time.Second

// record writes down what a route that changes something has done, before its caller is told.
// What an admin changed, or may have, is always written. Who is no admin could fill the log, so
// that old entries go: signing in, and what was refused or failed, is written as far as the
// budgets allow. A request that made no sense is not, nor one
// that changed nothing.
func (s *server) record(c *call, err error) error {
	if c.same && err == nil {
		return nil
	}
	status, code := c.status, ""
	if err != nil {
		f := faultOf(err)
		status, code = f.status, f.code
	}
	var bound *budget
	switch done, broken := status < http.StatusBadRequest, status >= http.StatusInternalServerError && c.entered; {
	case c.who.Role == auth.RoleAdmin && (done || broken || c.on != ""):
	case done:
		bound = &s.guests
	case broken, status == http.StatusUnauthorized && c.entered, status == http.StatusTooManyRequests, status == http.StatusForbidden && c.who.Role != "":
		bound = &s.failures
	default:
		return err
	}
	suppressed := 0
	if bound != nil {
		var ok bool
		if suppressed, ok = bound.note(s.opt.Now()); !ok {
			return err
		}
	}
	e := &auth.AuditEntry{
		At: s.opt.Now().UTC().Truncate(time.Millisecond), Who: c.who.Name, Role: c.who.Role, Via: c.who.Via, From: s.from(c.r), Node: s.opt.System.Node,
		Action: c.route.method + " " + c.route.path, On: c.on, Status: status, Code: code, Suppressed: suppressed,
	}
	if kept := s.keep(c, e); kept != nil {
		text, _ := json.Marshal(e) // of JSON and strings
		s.opt.Log.Error("the audit log cannot be written", slog.String("entry", string(text)), slog.Any("error", kept))
		if err == nil {
			return &fault{status: http.StatusInternalServerError, code: "audit_failed", message: "This was done, but it could not be written to the audit log. The gateway's own log has it."}
		}
	}
	return err
}

// keep writes an entry to the audit log, and to the gateway's own.
func (s *server) keep(c *call, e *auth.AuditEntry) (err error) {
	if e.Before, err = masked(c.before); err != nil {
		return err
	}
	if e.After, err = masked(c.after); err != nil {
		return err
	}
	s.opt.Log.Info("admin action", slog.String("who", e.Who), slog.String("role", string(e.Role)), slog.String("action", e.Action), slog.String("on", e.On),
		slog.Int("status", e.Status), slog.String("from", e.From))
	if s.opt.Audit == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(c.r.Context()), auditWithin)
	defer cancel()
	return s.opt.Audit.Append(ctx, e)
}

func (s *server) from(r *http.Request) string {
	if s.opt.Address == nil {
		return ""
	}
	if a := s.opt.Address(r); a.IsValid() {
		return a.String()
	}
	return ""
}

// budget bounds how much who is no admin can write: 20 entries at once, then one a minute. It
// may be used concurrently.
type budget struct {
	mu      sync.Mutex
	room    float64
	at      time.Time
	skipped int
}

const budgetAtOnce = 20

// note reports whether the next entry is to be written, and how many before it were not.
func (f *budget) note(now time.Time) (skipped int, ok bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.at.IsZero() {
		f.room = budgetAtOnce
	} else {
		f.room = min(f.room+now.Sub(f.at).Minutes(), budgetAtOnce)
	}
	f.at = now
	if f.room < 1 {
		f.skipped++
		return 0, false
	}
	f.room--
	skipped, f.skipped = f.skipped, 0
	return skipped, true
}

func (s *server) audit(c *call) error {
	if s.opt.Audit == nil {
		return notFound("There is no audit log here.")
	}
	limit, err := c.limit(50, 500)
	if err != nil {
		return err
	}
	entries, err := s.opt.Audit.Read(c.r.Context(), c.query("before"), limit+1)
	if err != nil {
		return auditFault(err)
	}
	out := list[auth.AuditEntry]{Data: entries}
	if len(entries) > limit {
		out.Data, out.Next = entries[:limit], entries[limit-1].ID
	}
	return c.reply(http.StatusOK, out)
}

func auditFault(err error) error {
	if errors.Is(err, auth.ErrCursor) {
		return badField("before", "before must be the next of an earlier answer.")
	}
	return unavailable("The audit log cannot be read now.")
}

// auditPage is how many entries an export reads at once.
const auditPage = 500

// exportAudit writes the whole log, newest first, as lines of JSON or as CSV.
func (s *server) exportAudit(c *call) error {
	if s.opt.Audit == nil {
		return notFound("There is no audit log here.")
	}
	format := c.query("format")
	if format != "" && format != "jsonl" && format != "csv" {
		return badField("format", "format is jsonl or csv.")
	}
	entries, err := s.opt.Audit.Read(c.r.Context(), "", auditPage)
	if err != nil {
		return auditFault(err)
	}
	write := c.auditWriter(format)
	for len(entries) > 0 {
		for i := range entries {
			if err := write(&entries[i]); err != nil {
				return err
			}
		}
		if len(entries) < auditPage {
			break
		}
		if entries, err = s.opt.Audit.Read(c.r.Context(), entries[len(entries)-1].ID, auditPage); err != nil {
			return err
		}
	}
	return write(nil)
}

// auditWriter begins the answer; nil ends it.
func (c *call) auditWriter(format string) func(*auth.AuditEntry) error {
	if format != "csv" {
		c.w.Header().Set("Content-Disposition", `attachment; filename="sluice-audit.jsonl"`)
		enc := json.NewEncoder(c.stream("application/jsonl"))
		return func(e *auth.AuditEntry) error {
			if e == nil {
				return nil
			}
			return enc.Encode(e)
		}
	}
	c.w.Header().Set("Content-Disposition", `attachment; filename="sluice-audit.csv"`)
	out := csv.NewWriter(c.stream("text/csv; charset=utf-8"))
	_ = out.Write([]string{"id", "at", "who", "role", "via", "from", "node", "action", "on", "status", "code", "before", "after", "suppressed"}) // Flush tells
	return func(e *auth.AuditEntry) error {
		if e == nil {
			out.Flush()
			return out.Error()
		}
		return out.Write([]string{
			e.ID, e.At.Format(time.RFC3339Nano), cell(e.Who), string(e.Role), e.Via, e.From, cell(e.Node), e.Action, cell(e.On),
			strconv.Itoa(e.Status), e.Code, string(e.Before), string(e.After), strconv.Itoa(e.Suppressed),
		})
	}
}

// cell keeps spreadsheets from taking a text for a formula.
func cell(text string) string {
	if text != "" && (text[0] == '=' || text[0] == '+' || text[0] == '-' || text[0] == '@' || text[0] == '\t' || text[0] == '\r') {
		return "'" + text
	}
	return text
}
