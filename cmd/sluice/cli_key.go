package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"

	"github.com/spf13/cobra"
)

const keyLong = `Issue API keys and say what they may do. Edits are in force within a second, also
for answers that run: those of a key that is disabled or deleted end.

The keys are where the gateway of the same configuration has them: in Redis, or in
data.dir, where a gateway that runs is spoken to instead. --admin-url speaks to one
elsewhere.

Exit codes: 0 done, 1 failed, 2 wrong usage or an invalid configuration.`

func (a *app) keyCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "key", Aliases: []string{"keys"}, Short: "Issue API keys, edit and revoke them", Long: keyLong, GroupID: "config", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	d := &deskFlags{}
	cmd.PersistentFlags().StringVar(&d.url, "admin-url", "", "`URL` of the admin listener of a gateway (default: that of the configuration)")
	cmd.PersistentFlags().StringVar(&d.token, "admin-token", "", "admin `token` for it (default: $"+envAdminToken+")")
	cmd.PersistentFlags().BoolVar(&d.json, "json", false, "print JSON")
	cmd.AddCommand(
		a.keyCreateCommand(d), a.keyListCommand(d), a.keyShowCommand(d), a.keyEditCommand(d), a.keyRotateCommand(d), a.keyExportCommand(d), a.keyImportCommand(d),
		a.keyActCommand(d, "disable", "Refuse a key until it is enabled again; its running answers end", http.MethodPost, "/disable"),
		a.keyActCommand(d, "enable", "Let a disabled key in again", http.MethodPost, "/enable"),
		a.keyActCommand(d, "delete", "End a key for good; its running answers end", http.MethodDelete, ""),
	)
	return cmd
}

// withDesk runs what a command does, and gives its failures their exit code.
func (a *app) withDesk(cmd *cobra.Command, f *deskFlags, do func(ctx context.Context, d *desk) error) error {
	d, err := a.openDesk(cmd, f)
	if err != nil {
		return err
	}
	err = do(cmd.Context(), d)
	if err = errors.Join(err, d.close()); err != nil {
		var exit *exitError
		if errors.As(err, &exit) {
			return exit
		}
		return &exitError{exitFailure, err}
	}
	return nil
}

func (a *app) keyCreateCommand(f *deskFlags) *cobra.Command {
	var fields keyFields
	cmd := &cobra.Command{
		Use:   "create NAME",
		Short: "Issue a key, and show its secret this once",
		Example: `  sluice key create app --model 'gpt-*' --limit requests_per_minute=60 --expires 90d
  sluice key create bot --org acme --team vision --limit usd_per_month=20,hard
  KEY=$(sluice key create ci --json | jq -r .secret)`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			body, err := fields.body(cmd)
			if err != nil {
				return err
			}
			body["name"] = args[0]
			return a.withDesk(cmd, f, func(ctx context.Context, d *desk) error {
				var row keyRow
				raw, err := d.call(ctx, http.MethodPost, "/keys", "", body, &row)
				if err != nil {
					return err
				}
				return a.tellSecret(f, d, raw, &row)
			})
		},
	}
	fields.add(cmd, false)
	return cmd
}

// tellSecret shows a key that has a new secret.
func (a *app) tellSecret(f *deskFlags, d *desk, raw []byte, row *keyRow) error {
	if d.note != "" {
		fmt.Fprintln(a.stderr, "note: "+d.note)
	}
	if f.json {
		return a.print(string(raw))
	}
	fmt.Fprintln(a.stderr, "This is shown once. The id, "+row.ID+", names the key from now on.")
	return a.print(row.Secret + "\n")
}

func (a *app) keyListCommand(f *deskFlags) *cobra.Command {
	var org, team, user, text string
	var deleted bool
	cmd := &cobra.Command{
		Use: "list", Aliases: []string{"ls"}, Short: "List the keys, the newest first; those of the configuration too", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			q := url.Values{"limit": {"500"}}
			for name, value := range map[string]string{"org": org, "team": team, "user": user, "q": text} {
				if value != "" {
					q.Set(name, value)
				}
			}
			if deleted {
				q.Set("deleted", "true")
			}
			return a.withDesk(cmd, f, func(ctx context.Context, d *desk) error {
				rows, raw, err := d.list(ctx, q)
				if err != nil {
					return err
				}
				if f.json {
					return a.printJSON(map[string]any{"data": raw})
				}
				return a.print(keyTable(rows))
			})
		},
	}
	cmd.Flags().StringVar(&org, "org", "", "only those of an `organisation`")
	cmd.Flags().StringVar(&team, "team", "", "only those of a `team`")
	cmd.Flags().StringVar(&user, "user", "", "only those of a `user`")
	cmd.Flags().StringVarP(&text, "search", "q", "", "only those with the `text` in their name, or an id that begins with it")
	cmd.Flags().BoolVar(&deleted, "deleted", false, "deleted ones too")
	return cmd
}

func (a *app) keyShowCommand(f *deskFlags) *cobra.Command {
	return &cobra.Command{
		Use: "show ID", Short: "Show a key, and what is left of its limits when a gateway runs", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.withDesk(cmd, f, func(ctx context.Context, d *desk) error {
				var row keyRow
				raw, err := d.call(ctx, http.MethodGet, keyPath(args[0]), "", nil, &row)
				if err != nil {
					return err
				}
				if f.json {
					return a.print(string(raw))
				}
				var report keyReport
				if d.running {
					_, _ = d.call(ctx, http.MethodGet, keyPath(args[0])+"/report", "", nil, &report) // it is worth showing without
				}
				return a.print(row.text() + report.text())
			})
		},
	}
}

func (a *app) keyEditCommand(f *deskFlags) *cobra.Command {
	var fields keyFields
	var version uint64
	cmd := &cobra.Command{
		Use:   "edit ID",
		Short: "Change what a key may do; what is not named stays",
		Example: `  sluice key edit 3f0a9c1b2d4e --limit requests_per_minute=120 --limit concurrent=4
  sluice key edit 3f0a9c1b2d4e --model '' --expires never`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			body, err := fields.body(cmd)
			if err != nil {
				return err
			}
			if len(body) == 0 {
				return errors.New("say what is to change")
			}
			return a.act(cmd, f, http.MethodPatch, keyPath(args[0]), version, body)
		},
	}
	fields.add(cmd, true)
	cmd.Flags().Uint64Var(&version, "if-version", 0, "fail if the key is of another `version` by now")
	return cmd
}

// act edits one key and shows it.
func (a *app) act(cmd *cobra.Command, f *deskFlags, method, path string, version uint64, body map[string]any) error {
	return a.withDesk(cmd, f, func(ctx context.Context, d *desk) error {
		match := ""
		if version != 0 {
			match = fmt.Sprintf("%q", fmt.Sprint(version))
		}
		var row keyRow
		raw, err := d.call(ctx, method, path, match, body, &row)
		if err != nil {
			return err
		}
		if f.json {
			return a.print(string(raw))
		}
		return a.print(row.ID + " " + row.Name + " is " + row.State + "\n")
	})
}

func (a *app) keyActCommand(f *deskFlags, name, short, method, path string) *cobra.Command {
	return &cobra.Command{
		Use: name + " ID", Short: short, Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.act(cmd, f, method, keyPath(args[0])+path, 0, nil)
		},
	}
}

func (a *app) keyRotateCommand(f *deskFlags) *cobra.Command {
	overlap := "0s"
	cmd := &cobra.Command{
		Use:     "rotate ID",
		Short:   "Give a key a new secret, and show it this once",
		Example: "  sluice key rotate 3f0a9c1b2d4e --overlap 24h   # both secrets are good for a day",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			wait, err := parseSpan(overlap)
			if err != nil {
				return fmt.Errorf("--overlap: %w", err)
			}
			body := map[string]any{"overlap_seconds": int64(wait.Seconds())}
			return a.withDesk(cmd, f, func(ctx context.Context, d *desk) error {
				var row keyRow
				raw, err := d.call(ctx, http.MethodPost, keyPath(args[0])+"/rotate", "", body, &row)
				if err != nil {
					return err
				}
				return a.tellSecret(f, d, raw, &row)
			})
		},
	}
	cmd.Flags().StringVar(&overlap, "overlap", overlap, "`time` for which the old secret stays good")
	return cmd
}

func (a *app) keyExportCommand(f *deskFlags) *cobra.Command {
	return &cobra.Command{
		Use: "export [FILE]", Short: "Write all keys as TOML; they are good under the same pepper only", Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.withDesk(cmd, f, func(ctx context.Context, d *desk) error {
				text, err := d.call(ctx, http.MethodGet, "/keys/export", "", nil, nil)
				if err != nil || len(args) == 0 || args[0] == "-" {
					return errors.Join(err, a.print(string(text)))
				}
				return os.WriteFile(args[0], text, 0o600)
			})
		},
	}
}

func (a *app) keyImportCommand(f *deskFlags) *cobra.Command {
	var replace bool
	cmd := &cobra.Command{
		Use: "import [FILE]", Short: "Take in what export wrote, from a file or standard input", Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			in := a.stdin
			if len(args) == 1 && args[0] != "-" {
				file, err := os.Open(args[0])
				if err != nil {
					return &exitError{exitFailure, err}
				}
				defer file.Close()
				in = file
			}
			path := "/keys/import"
			if replace {
				path += "?replace=true"
			}
			return a.withDesk(cmd, f, func(ctx context.Context, d *desk) error { return a.importKeys(ctx, f, d, path, in) })
		},
	}
	cmd.Flags().BoolVar(&replace, "replace", false, "replace keys that are there and differ")
	return cmd
}

func (a *app) importKeys(ctx context.Context, f *deskFlags, d *desk, path string, in io.Reader) error {
	var done struct{ Created, Replaced, Same, Kept int }
	raw, err := d.send(ctx, http.MethodPost, path, "", "application/toml", in)
	if err == nil {
		err = json.Unmarshal(raw, &done)
	}
	if err != nil {
		return err
	}
	if f.json {
		return a.print(string(raw))
	}
	return a.print(fmt.Sprintf("%d created, %d replaced, %d the same, %d kept as they were\n", done.Created, done.Replaced, done.Same, done.Kept))
}

func (a *app) printJSON(v any) error {
	text, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return err
	}
	return a.print(string(text) + "\n")
}

// keyPath takes an id, or the beginning of a key up to its secret.
func keyPath(id string) string { return "/keys/" + url.PathEscape(strings.TrimSpace(id)) }
