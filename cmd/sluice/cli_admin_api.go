package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strings"

	"github.com/spf13/cobra"
)

const adminCallLong = `Ask the admin API of a gateway that runs, and print its answer: what the dashboard can do,
this can. Paths begin below /admin/api; /openapi.json describes them all.

The gateway is the one that runs over data.dir of the same configuration, or the one at
--admin-url. Exit codes: 0 done, 1 failed, 2 wrong usage or an invalid configuration.`

// adminCallCommands speak to the admin API by its methods.
func (a *app) adminCallCommands() (out []*cobra.Command) {
	for _, c := range []struct{ method, short, example string }{
		{http.MethodGet, "Read from the admin API", "  sluice admin get /streams\n  sluice admin get '/usage?group_by=key,model&interval=day&format=csv' > usage.csv\n  sluice admin get /targets"},
		{http.MethodPost, "Do something by the admin API", "  sluice admin post /config/reload"},
		{http.MethodPut, "Replace something by the admin API", ""},
		{http.MethodPatch, "Change something by the admin API", ""},
		{http.MethodDelete, "Remove or end something by the admin API", "  sluice admin delete /streams/req_0123456789abcdef01234567"},
	} {
		out = append(out, a.adminCallCommand(c.method, c.short, c.example))
	}
	return out
}

func (a *app) adminCallCommand(method, short, example string) *cobra.Command {
	d := &deskFlags{}
	var data, match string
	cmd := &cobra.Command{
		Use: strings.ToLower(method) + " PATH", Short: short, Long: adminCallLong, Example: example, Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			var body io.Reader
			kind := ""
			switch {
			case data == "-":
				body, kind = a.stdin, "application/json"
			case data != "":
				body, kind = strings.NewReader(data), "application/json"
			}
			return a.adminCall(cmd, d, method, args[0], match, kind, body)
		},
	}
	cmd.Flags().StringVar(&d.url, "admin-url", "", "`URL` of the admin listener of a gateway (default: of the one that runs here)")
	cmd.Flags().StringVar(&d.token, "admin-token", "", "admin `token` for it (default: $"+envAdminToken+")")
	if method != http.MethodGet {
		cmd.Flags().StringVar(&data, "data", "", "`JSON` to send, - for standard input")
		cmd.Flags().StringVar(&match, "if-match", "", "`ETag` of the version that is meant, with its quotes")
	}
	return cmd
}

func (a *app) adminCall(cmd *cobra.Command, f *deskFlags, method, path, match, kind string, body io.Reader) error {
	d, err := a.openGateway(cmd, f)
	if err != nil {
		return err
	}
	raw, err := d.send(cmd.Context(), method, "/"+strings.TrimLeft(path, "/"), match, kind, body)
	if err = errors.Join(err, d.close()); err != nil {
		return &exitError{exitFailure, err}
	}
	var pretty bytes.Buffer
	if json.Indent(&pretty, raw, "", "  ") == nil {
		raw = pretty.Bytes()
	}
	_, err = a.stdout.Write(raw)
	return err
}

// openGateway finds a gateway that runs.
func (a *app) openGateway(cmd *cobra.Command, f *deskFlags) (*desk, error) {
	if f.url != "" {
		return a.openDesk(cmd, f)
	}
	cfg, warnings, err := a.loadConfig(cmd)
	if err != nil {
		return nil, err
	}
	a.warn(warnings)
	if cfg.Data.Dir != "" {
		if d := nodeDesk(cfg); d != nil {
			return d, nil
		}
	}
	token := f.token
	if token == "" {
		token, _ = lookupIn(a.environ)(envAdminToken)
	}
	if token == "" || cfg.Server.AdminListen == "" {
		return nil, &exitError{exitFailure, errors.New("no gateway runs over data.dir of this configuration: name one with --admin-url, and give an admin token with --admin-token or $" + envAdminToken)}
	}
	base, err := adminURL(cfg, cfg.Server.AdminListen)
	if err != nil {
		return nil, &exitError{exitFailure, err}
	}
	return ownDesk(base, token), nil
}
