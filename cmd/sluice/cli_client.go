package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"time"

	"github.com/sashabaranov/go-openai"
	"github.com/spf13/cobra"
)

// target is the server that a client command talks to.
type target struct {
	base string // API root, such as http://127.0.0.1:8080/v1
	key  string
	own  bool // taken from the configuration: this very machine
}

// targetFlags are shared by the client commands.
type targetFlags struct{ url, key, model string }

func (t *targetFlags) add(cmd *cobra.Command) {
	cmd.Flags().StringVar(&t.url, "url", "", "`URL` of an OpenAI-compatible server (default: the configured listen address)")
	cmd.Flags().StringVar(&t.key, "key", "", "API `key` (default: $SLUICE_KEY, or the first plain key of the configuration)")
	cmd.Flags().StringVar(&t.model, "model", "", "model `name` (default: the first one that the server lists)")
	_ = cmd.RegisterFlagCompletionFunc("model", cobra.FixedCompletions([]string{"demo-echo", "demo-slow", "demo-tools"}, cobra.ShellCompDirectiveNoFileComp))
}

// target resolves the flags. A key of the configuration goes to the
// configured address only, never to a URL that was given.
func (a *app) target(cmd *cobra.Command, f *targetFlags) (target, error) {
	t := target{key: f.key}
	if t.key == "" {
		t.key, _ = lookupIn(a.environ)(envKey)
	}
	if f.url != "" {
		u, err := url.Parse(f.url)
		if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
			return t, fmt.Errorf("--url wants an address such as http://127.0.0.1:8080/v1")
		}
		if strings.Trim(u.Path, "/") == "" {
			u.Path = "/v1"
		}
		t.base = strings.TrimSuffix(u.String(), "/")
		return t, nil
	}
	cfg, _, err := a.loadConfig(cmd)
	if err != nil {
		return t, err
	}
	root, err := ownURL(cfg)
	if err != nil {
		return t, &exitError{exitUsage, err}
	}
	t.base, t.own = root+"/v1", true
	for _, k := range cfg.Keys {
		if t.key == "" {
			t.key = k.Key.Reveal()
		}
	}
	return t, nil
}

// ownURL is how this machine reaches the configured listen address.
func ownURL(cfg *Config) (string, error) {
	host, port, err := net.SplitHostPort(cfg.Server.Listen)
	if err != nil {
		return "", err
	}
	if port == "0" {
		return "", errors.New("server.listen leaves the port to the system; name the server with --url")
	}
	addr, err := netip.ParseAddr(host)
	switch {
	case host == "" || err == nil && addr.Unmap().IsUnspecified() && addr.Unmap().Is4():
		host = "127.0.0.1"
	case err == nil && addr.IsUnspecified():
		host = "::1"
	}
	scheme := "http"
	if cfg.Server.TLSCert != "" {
		scheme = "https"
	}
	return scheme + "://" + net.JoinHostPort(host, port), nil
}

// httpClient has no time limit over a whole exchange: streams are long.
func (t target) httpClient(conns int) *http.Client {
	tr := &http.Transport{
		Proxy:                 http.ProxyFromEnvironment,
		MaxIdleConnsPerHost:   conns,
		ForceAttemptHTTP2:     true,
		TLSHandshakeTimeout:   10 * time.Second,
		ResponseHeaderTimeout: 10 * time.Minute,
		DialContext:           (&net.Dialer{Timeout: 5 * time.Second}).DialContext,
	}
	if t.own {
		tr.Proxy = nil
		// The certificate names the public host, and this is the loopback of the same machine.
		tr.TLSClientConfig = &tls.Config{InsecureSkipVerify: true} //nolint:gosec // see above
	}
	return &http.Client{Transport: tr}
}

// client is a go-openai client for the target.
func (t target) client() *openai.Client {
	cfg := openai.DefaultConfig(t.key)
	cfg.BaseURL = t.base
	cfg.HTTPClient = dataOnly{t.httpClient(1)}
	cfg.EmptyMessagesLimit = 1 << 30
	return openai.NewClientWithConfig(cfg)
}

// pickModel takes the first model that the server lists.
func pickModel(ctx context.Context, c *openai.Client) (string, error) {
	list, err := c.ListModels(ctx)
	if err != nil {
		return "", fmt.Errorf("ask for the list of models: %w", plainError(err))
	}
	if len(list.Models) == 0 {
		return "", errors.New("the server lists no models; name one with --model")
	}
	return list.Models[0].ID, nil
}

// plainError shortens the errors of go-openai to what a person needs.
func plainError(err error) error {
	var api *openai.APIError
	if errors.As(err, &api) {
		switch api.HTTPStatusCode {
		case 0:
			return errors.New(api.Message)
		case http.StatusUnauthorized:
			return fmt.Errorf("%s: %s (give a key with --key or $SLUICE_KEY)", api.HTTPStatus, api.Message)
		}
		return fmt.Errorf("%s: %s", api.HTTPStatus, api.Message)
	}
	var request *openai.RequestError
	if errors.As(err, &request) {
		return fmt.Errorf("%s: %.200s", request.HTTPStatus, strings.TrimSpace(string(request.Body)))
	}
	var op *net.OpError
	if errors.As(err, &op) && op.Op == "dial" {
		return fmt.Errorf("no server answers at %s (%w); is `sluice serve` running?", op.Addr, op.Err)
	}
	return err
}

func (a *app) healthCommand() *cobra.Command {
	var address string
	var timeout time.Duration
	cmd := &cobra.Command{
		Use:   "healthcheck",
		Short: "Ask a running server whether it is ready",
		Long: `Ask /readyz of the configured listen address, for containers that have no curl.

Exit codes: 0 ready, 1 not.`,
		Example: "  HEALTHCHECK CMD [\"/sluice\", \"healthcheck\"]",
		GroupID: "serve",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, cancel := context.WithTimeout(cmd.Context(), timeout)
			defer cancel()
			if err := a.health(ctx, cmd, address); err != nil {
				return &exitError{exitFailure, err}
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&address, "url", "", "`URL` to ask (default: /readyz of the configured listen address)")
	cmd.Flags().DurationVar(&timeout, "timeout", 3*time.Second, "how long to wait for the answer")
	return cmd
}

func (a *app) health(ctx context.Context, cmd *cobra.Command, address string) error {
	own := address == ""
	if own {
		cfg, _, err := a.loadConfig(cmd)
		if err != nil {
			return errors.New("the configuration is invalid")
		}
		if address, err = ownURL(cfg); err != nil {
			return err
		}
	}
	u, err := url.Parse(address)
	if err != nil || u.Host == "" {
		return errors.New("--url wants an address such as http://127.0.0.1:8080")
	}
	if strings.Trim(u.Path, "/") == "" {
		u.Path = "/readyz"
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return err
	}
	client := target{own: own}.httpClient(1)
	defer client.CloseIdleConnections()
	resp, err := client.Do(req)
	if err != nil {
		return fmt.Errorf("not ready: %w", plainError(err))
	}
	defer resp.Body.Close()
	body, _ := io.ReadAll(io.LimitReader(resp.Body, 512)) // only to be shown
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("not ready: %s %s", resp.Status, strings.TrimSpace(string(body)))
	}
	return nil
}
