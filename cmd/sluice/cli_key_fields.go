package main

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
)

// keyFields are the flags that say what a key may do.
type keyFields struct {
	name, user, team, org, expires                       string
	models, routes, transports, groups, limits, metadata []string
}

func (k *keyFields) add(cmd *cobra.Command, named bool) {
	f := cmd.Flags()
	if named {
		f.StringVar(&k.name, "name", "", "`name` that people call it by")
	}
	f.StringArrayVar(&k.models, "model", nil, "`model` that it is for, or a pattern such as 'gpt-*' (repeatable; '' is all)")
	f.StringArrayVar(&k.routes, "route", nil, "`operation` that it is for: chat, completions, embeddings, ... (repeatable; '' is all)")
	f.StringArrayVar(&k.transports, "transport", nil, "how answers may travel: http, sse, `ws` (repeatable; '' is all)")
	f.StringArrayVar(&k.groups, "group", nil, "`group` for routing (repeatable; '' is none)")
	f.StringArrayVar(&k.limits, "limit", nil, "`limit`, such as requests_per_minute=60 or usd_per_month=20,hard or concurrent=2,models=gpt-*|o*,scope=key_model (repeatable; '' is none)")
	f.StringArrayVar(&k.metadata, "meta", nil, "`name=value` to remember (repeatable; '' is none)")
	f.StringVar(&k.org, "org", "", "`organisation` that it belongs to")
	f.StringVar(&k.team, "team", "", "`team` in it")
	f.StringVar(&k.user, "user", "", "`user` in it")
	f.StringVar(&k.expires, "expires", "", "`when` it ends: in a while (12h, 90d), on a day (2027-01-31), at a time (RFC 3339), or never")
}

// body is the request: what was given, and nothing else.
func (k *keyFields) body(cmd *cobra.Command) (map[string]any, error) {
	body := map[string]any{}
	for name, value := range map[string]string{"name": k.name, "org": k.org, "team": k.team, "user": k.user} {
		if cmd.Flags().Changed(name) {
			body[name] = value
		}
	}
	for flag, l := range map[string]struct {
		field string
		all   []string
	}{"model": {"models", k.models}, "route": {"routes", k.routes}, "transport": {"transports", k.transports}, "group": {"groups", k.groups}} {
		if cmd.Flags().Changed(flag) {
			body[l.field] = withoutEmpty(l.all)
		}
	}
	if cmd.Flags().Changed("meta") {
		meta := map[string]string{}
		for _, entry := range withoutEmpty(k.metadata) {
			name, value, ok := strings.Cut(entry, "=")
			if !ok {
				return nil, fmt.Errorf("--meta %q: want name=value", entry)
			}
			meta[name] = value
		}
		body["metadata"] = meta
	}
	if cmd.Flags().Changed("limit") {
		limits := []map[string]any{}
		for _, text := range withoutEmpty(k.limits) {
			l, err := parseLimit(text)
			if err != nil {
				return nil, fmt.Errorf("--limit %q: %w", text, err)
			}
			limits = append(limits, l)
		}
		body["limits"] = limits
	}
	if cmd.Flags().Changed("expires") {
		at, err := parseExpiry(k.expires, time.Now())
		if err != nil {
			return nil, fmt.Errorf("--expires: %w", err)
		}
		body["expires_at"] = at
	}
	return body, nil
}

func withoutEmpty(all []string) []string {
	out := []string{}
	for _, s := range all {
		if s != "" {
			out = append(out, s)
		}
	}
	return out
}

// parseLimit reads "requests_per_minute=60,burst=100,models=a|b,scope=key_model,hard".
func parseLimit(text string) (map[string]any, error) {
	out := map[string]any{}
	for part := range strings.SplitSeq(text, ",") {
		name, value, given := strings.Cut(strings.TrimSpace(part), "=")
		if _, twice := out[name]; twice {
			return nil, fmt.Errorf("%s is given twice", name)
		}
		switch {
		case name == "hard" && !given:
			out[name] = true
		case !given || value == "":
			return nil, fmt.Errorf("%q: want name=amount, such as requests_per_minute=60", part)
		case name == "models":
			out[name] = strings.Split(value, "|")
		case name == "scope" || name == "on_trouble" || strings.HasPrefix(name, "usd_"):
			out[name] = value
		default:
			n, err := strconv.ParseInt(strings.ReplaceAll(value, "_", ""), 10, 64)
			if err != nil {
				return nil, fmt.Errorf("%s: want a whole number", name)
			}
			out[name] = n
		}
	}
	return out, nil
}

// parseSpan reads a duration, which may be in days: "90d".
func parseSpan(text string) (time.Duration, error) {
	if days, ok := strings.CutSuffix(text, "d"); ok {
		if n, err := strconv.Atoi(days); err == nil && n >= 0 && n < 36_500 {
			return time.Duration(n) * 24 * time.Hour, nil
		}
	}
	d, err := time.ParseDuration(text)
	if err != nil || d < 0 {
		return 0, errors.New("want a time such as 30m, 24h or 90d")
	}
	return d, nil
}

// parseExpiry is nil for never. A day ends when it is over, in UTC.
func parseExpiry(text string, now time.Time) (any, error) {
	if text == "never" {
		return nil, nil
	}
	if day, err := time.Parse(time.DateOnly, text); err == nil {
		return day.AddDate(0, 0, 1), nil
	}
	if at, err := time.Parse(time.RFC3339, text); err == nil {
		return at, nil
	}
	d, err := parseSpan(text)
	if err != nil {
		return nil, errors.New("want never, a time such as 12h or 90d, a day such as 2027-01-31, or RFC 3339")
	}
	return now.Add(d).UTC(), nil
}

// keyRow is a key as the admin API shows it.
type keyRow struct {
	ID, Name, State, Source, Secret    string
	User, Team, Org                    string
	Version                            uint64
	Models, Routes, Transports, Groups []string
	Limits                             []map[string]any
	Metadata                           map[string]string
	Secrets                            int
	ExpiresAt                          *time.Time `json:"expires_at"`
	CreatedAt                          *time.Time `json:"created_at"`
	LastUsedAt                         *time.Time `json:"last_used_at"`
}

func when(t *time.Time, none string) string {
	if t == nil {
		return none
	}
	return t.Local().Format("2006-01-02 15:04")
}

func (r *keyRow) owner() string {
	return dash(strings.Trim(strings.Join([]string{r.Org, r.Team, r.User}, "/"), "/"))
}

func dash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

func orAll(names []string) string {
	if len(names) == 0 {
		return "all"
	}
	return strings.Join(names, " ")
}

func keyTable(rows []keyRow) string {
	var out strings.Builder
	w := tabwriter.NewWriter(&out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "ID\tNAME\tSTATE\tMODELS\tLIMITS\tOWNER\tEXPIRES\tLAST USED\tSOURCE")
	for i := range rows {
		r := &rows[i]
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", r.ID, r.Name, r.State, orAll(r.Models), dash(limitNames(r.Limits)), r.owner(), when(r.ExpiresAt, "never"), when(r.LastUsedAt, "-"), r.Source)
	}
	_ = w.Flush() // into memory
	return out.String()
}

// limitNames writes limits as --limit takes them.
func limitNames(limits []map[string]any) string {
	var all []string
	for _, l := range limits {
		var parts []string
		for _, name := range inOrder(l) {
			switch v := l[name].(type) {
			case bool:
				parts = append(parts, name)
			case []any:
				parts = append(parts, name+"="+strings.ReplaceAll(strings.Trim(fmt.Sprint(v), "[]"), " ", "|"))
			case float64:
				parts = append(parts, name+"="+strconv.FormatFloat(v, 'f', -1, 64))
			default:
				parts = append(parts, fmt.Sprintf("%s=%v", name, v))
			}
		}
		all = append(all, strings.Join(parts, ","))
	}
	return strings.Join(all, " ")
}

func (r *keyRow) text() string {
	var out strings.Builder
	w := tabwriter.NewWriter(&out, 0, 0, 2, ' ', 0)
	line := func(name, value string) { fmt.Fprintf(w, "%s\t%s\n", name, dash(value)) }
	line("id", r.ID)
	line("name", r.Name)
	line("state", r.State)
	line("source", r.Source)
	line("owner", r.owner())
	line("models", orAll(r.Models))
	line("routes", orAll(r.Routes))
	line("transports", orAll(r.Transports))
	line("groups", strings.Join(r.Groups, " "))
	line("limits", limitNames(r.Limits))
	for _, name := range inOrder(r.Metadata) {
		line("metadata "+name, r.Metadata[name])
	}
	line("secrets", strconv.Itoa(r.Secrets))
	line("expires", when(r.ExpiresAt, "never"))
	line("created", when(r.CreatedAt, ""))
	line("last used", when(r.LastUsedAt, ""))
	if r.Version > 0 {
		line("version", strconv.FormatUint(r.Version, 10))
	}
	_ = w.Flush() // into memory
	return out.String()
}

// keyReport is what is shown of the limits' levels.
type keyReport struct {
	Limits []struct {
		ID, Name, Unit, Per string
		Limit, Remaining    any
		Reset               int64 `json:"reset_ms"`
	}
}

func (r *keyReport) text() string {
	if len(r.Limits) == 0 {
		return ""
	}
	var out strings.Builder
	w := tabwriter.NewWriter(&out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "\nLIMIT\tOF\tLEFT\tFULL IN")
	for _, l := range r.Limits {
		fmt.Fprintf(w, "%s\t%s\t%v of %v\t%s\n", l.ID, l.Name, l.Remaining, l.Limit, (time.Duration(l.Reset) * time.Millisecond).Round(time.Second))
	}
	_ = w.Flush() // into memory
	return out.String()
}
