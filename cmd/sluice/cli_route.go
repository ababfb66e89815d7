package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"sluice/handlers/admin"
)

const routeLong = `Tell where a request would go, and why: each rule of [[routes]] with what came of it, and
the targets in the order in which they would be tried. Nothing is sent to an upstream by
the gateway that is asked.

Asked is the gateway that runs over data.dir of the same configuration, or the one at
--admin-url; they know how their targets are. Where there is none, the configuration
alone answers, and a model that only a list of an upstream has is looked for there.

Exit codes: 0 done, 1 failed, 2 wrong usage or an invalid configuration.`

// routeQuestion are the flags of route explain.
type routeQuestion struct {
	desk               deskFlags
	model, op, key, at string
	headers            []string
	body               string
	offline            bool
}

func (a *app) routeCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "route", Short: "Tell where requests go", Long: routeLong, GroupID: "config", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	q := &routeQuestion{}
	explain := &cobra.Command{
		Use: "explain --model NAME", Short: "Tell where a request would go, and why", Long: routeLong, Args: cobra.NoArgs,
		Example: "  sluice route explain --model assistant --key app --header 'X-Experiment: b'\n  sluice route explain --model assistant --body request.json --at 2026-01-31T22:30:00Z",
		RunE:    func(cmd *cobra.Command, _ []string) error { return a.explain(cmd, q) },
	}
	f := explain.Flags()
	f.StringVar(&q.model, "model", "", "`name` of the model, as callers give it")
	f.StringVar(&q.op, "op", "chat", "`operation`: chat, completions, embeddings, moderations, responses")
	f.StringVar(&q.key, "key", "", "who calls: `name` of a key of the configuration, or id of an issued one")
	f.StringArrayVar(&q.headers, "header", nil, "a `header` of the request, as in 'Name: value' (repeatable)")
	f.StringVar(&q.body, "body", "", "`file` with the body of the request, - for standard input (default: a short text)")
	f.StringVar(&q.at, "at", "", "`time` of the request, RFC 3339 (default: now)")
	f.BoolVar(&q.offline, "offline", false, "answer from the configuration alone")
	f.StringVar(&q.desk.url, "admin-url", "", "`URL` of the admin listener of a gateway")
	f.StringVar(&q.desk.token, "admin-token", "", "admin `token` for it (default: $"+envAdminToken+")")
	f.BoolVar(&q.desk.json, "json", false, "print JSON")
	_ = explain.MarkFlagRequired("model") // the flag exists
	cmd.AddCommand(explain)
	return cmd
}

func (a *app) explain(cmd *cobra.Command, f *routeQuestion) error {
	q, err := f.question(a.stdin)
	if err != nil {
		return &exitError{exitUsage, err}
	}
	answer, err := a.askRoute(cmd, f, q)
	if err != nil {
		return err
	}
	if f.desk.json {
		out, err := json.MarshalIndent(answer, "", "  ")
		if err == nil {
			_, err = fmt.Fprintf(a.stdout, "%s\n", out)
		}
		return err
	}
	return printRoute(a.stdout, answer)
}

// question is what the flags ask.
func (f *routeQuestion) question(stdin io.Reader) (*admin.RouteQuestion, error) {
	q := &admin.RouteQuestion{Model: f.model, Op: f.op, Key: f.key, Headers: map[string]string{}}
	for _, h := range f.headers {
		name, value, ok := strings.Cut(h, ":")
		if !ok {
			return nil, fmt.Errorf("--header %q: want 'Name: value'", h)
		}
		q.Headers[strings.TrimSpace(name)] = strings.TrimSpace(value)
	}
	var err error
	switch f.body {
	case "":
	case "-":
		q.Body, err = io.ReadAll(stdin)
	default:
		q.Body, err = os.ReadFile(f.body)
	}
	if err != nil {
		return nil, fmt.Errorf("--body: %w", err)
	}
	if f.at != "" {
		at, err := time.Parse(time.RFC3339, f.at)
		if err != nil {
			return nil, fmt.Errorf("--at %q: want a time such as 2026-01-31T22:30:00Z", f.at)
		}
		q.At = &at
	}
	return q, nil
}

// askRoute asks the gateway that runs, else the configuration.
func (a *app) askRoute(cmd *cobra.Command, f *routeQuestion, q *admin.RouteQuestion) (*admin.RouteAnswer, error) {
	var d *desk
	var err error
	if f.desk.url != "" {
		if d, err = a.openDesk(cmd, &f.desk); err != nil {
			return nil, &exitError{exitUsage, err}
		}
	} else {
		cfg, warnings, err := a.loadConfig(cmd)
		if err != nil {
			return nil, err
		}
		a.warn(warnings)
		if cfg.Data.Dir != "" && !f.offline {
			d = nodeDesk(cfg)
		}
		if d == nil {
			answer, err := explainOffline(cmd.Context(), cfg, readBuild().String(), q)
			if err != nil {
				return nil, &exitError{exitFailure, err}
			}
			return answer, nil
		}
	}
	body, err := json.Marshal(q)
	if err != nil {
		return nil, err
	}
	raw, err := d.send(cmd.Context(), http.MethodPost, "/routes/explain", "", "application/json", strings.NewReader(string(body)))
	answer := new(admin.RouteAnswer)
	if err == nil {
		err = json.Unmarshal(raw, answer)
	}
	if err = errors.Join(err, d.close()); err != nil {
		return nil, &exitError{exitFailure, err}
	}
	return answer, nil
}

func printRoute(w io.Writer, r *admin.RouteAnswer) error {
	t := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	fmt.Fprintf(t, "model\t%s\n", r.Model)
	for _, rule := range r.Rules {
		fmt.Fprintf(t, "rule\t%s\t%s\t%s\n", rule.Name, verdict(&rule), rule.Then)
	}
	if r.Pool != "" {
		fmt.Fprintf(t, "pool\t%s\t%s\n", r.Pool, r.Balance)
	}
	for _, c := range r.Targets {
		place, why := fmt.Sprint(c.Place), ""
		if c.Place == 0 {
			place, why = "-", "\tnot asked: "+c.Why
		}
		what := []string{c.State, fmt.Sprintf("priority %d", c.Priority), fmt.Sprintf("weight %d", c.Weight), fmt.Sprintf("%d running", c.Running)}
		if c.Version != "" {
			what = append(what, "version "+c.Version)
		}
		fmt.Fprintf(t, "target\t%s  %s\t%s%s\n", place, c.Name, strings.Join(what, ", "), why)
	}
	if len(r.Then) > 0 {
		fmt.Fprintf(t, "then\t%s\n", strings.Join(r.Then, ", "))
	}
	for _, s := range r.Shadows {
		fmt.Fprintf(t, "copy\t%s\t%g %%\n", s.Model, s.Percent)
	}
	if e := r.Error; e != nil {
		fmt.Fprintf(t, "error\t%d %s\t%s\n", e.Status, e.Code, e.Message)
	}
	return t.Flush()
}

func verdict(r *admin.RouteRule) string {
	switch {
	case r.Decides:
		return "decides"
	case r.Skipped:
		return "not reached"
	case r.Holds:
		return "holds, and lets others decide"
	default:
		return "does not hold: " + r.Why
	}
}
