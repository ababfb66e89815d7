package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"sluice/handlers/admin"
	"sluice/handlers/auth"
	"sluice/handlers/auth/store"
)

// envAdminToken is where client commands find an admin token.
const envAdminToken = "SLUICE_ADMIN_TOKEN"

// deskFlags are shared by the commands about keys.
type deskFlags struct {
	url, token string
	json       bool
}

// desk is the admin API: that of a gateway, or of this process over an opened store.
type desk struct {
	base    string
	token   string
	client  *http.Client
	running bool   // it is a gateway's
	note    string // for who creates keys
	closers []func() error
}

func (d *desk) close() error {
	var all []error
	for _, end := range d.closers {
		all = append(all, end())
	}
	return errors.Join(all...)
}

// openDesk finds the keys: at --admin-url; in Redis; at the gateway that runs over data.dir; or
// in data.dir itself.
func (a *app) openDesk(cmd *cobra.Command, f *deskFlags) (*desk, error) {
	token := f.token
	if token == "" {
		token, _ = lookupIn(a.environ)(envAdminToken)
	}
	if f.url != "" {
		u, err := url.Parse(f.url)
		switch {
		case err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https":
			return nil, errors.New("--admin-url wants an address such as http://127.0.0.1:8081")
		case token == "":
			return nil, errors.New("--admin-url needs an admin token: --admin-token or $" + envAdminToken)
		}
		return remoteDesk(strings.TrimSuffix(u.Scheme+"://"+u.Host+strings.TrimSuffix(u.Path, "/"), admin.Prefix), token), nil
	}
	cfg, warnings, err := a.loadConfig(cmd)
	if err != nil {
		return nil, err
	}
	a.warn(warnings)
	d, err := findDesk(cfg, token)
	if err != nil {
		return nil, &exitError{exitFailure, err}
	}
	return d, nil
}

func findDesk(cfg *Config, token string) (*desk, error) {
	kind, why := storeKind(cfg)
	switch {
	case why != "":
		return nil, errors.New(why)
	case kind == storeMemory && token == "":
		return nil, errors.New("no keys outlive the gateway, since data.dir is not set: set it; or give an admin token of the gateway that runs, with --admin-token or $" + envAdminToken)
	case kind == storeMemory:
		base, err := adminURL(cfg, cfg.Server.AdminListen)
		if err != nil {
			return nil, err
		}
		d := ownDesk(base, token)
		d.note = "data.dir is not set: the key is gone when the gateway stops"
		return d, nil
	case kind == storeFile:
		if d := nodeDesk(cfg); d != nil {
			return d, nil
		}
	}
	s, _, closers, err := openStore(cfg, kind, slog.New(slog.DiscardHandler))
	if errors.Is(err, store.ErrInUse) {
		if d := nodeDesk(cfg); d != nil { // it has just started
			return d, nil
		}
		return nil, fmt.Errorf("%w, and its admin API does not answer: is server.admin_listen turned off?", err)
	}
	if err != nil {
		return nil, err
	}
	return storeDesk(cfg, s, closers)
}

// nodeDesk is the gateway that runs over data.dir, or nil.
func nodeDesk(cfg *Config) *desk {
	text, err := os.ReadFile(filepath.Join(cfg.Data.Dir, localTokenFile))
	if err != nil {
		return nil
	}
	token, base, ok := strings.Cut(strings.TrimSpace(string(text)), "\n")
	if !ok {
		return nil
	}
	u, err := url.Parse(base)
	if err != nil {
		return nil
	}
	conn, err := net.DialTimeout("tcp", u.Host, time.Second)
	if err != nil {
		return nil // it was killed
	}
	_ = conn.Close()
	d := remoteDesk(base, token)
	d.trust()
	return d
}

// adminScheme is how the admin listener is spoken to.
func adminScheme(c *Config) string {
	if c.Admin.TLS {
		return "https"
	}
	return "http"
}

// adminURL is how this machine reaches the admin listener at an address.
func adminURL(c *Config, address string) (string, error) {
	base, err := ownURL(&Config{Server: Server{Listen: address}})
	if err != nil {
		return "", fmt.Errorf("server.admin_listen: %w", err)
	}
	return adminScheme(c) + strings.TrimPrefix(base, "http"), nil
}

// ownDesk is a gateway at the configured address.
func ownDesk(base, token string) *desk {
	d := remoteDesk(base, token)
	if u, err := url.Parse(base); err == nil && isLoopback(u.Host) {
		d.trust()
	}
	return d
}

// trust takes whatever certificate there is: it names the public host, and the gateway is on this
// machine.
func (d *desk) trust() {
	tr := d.client.Transport.(*http.Transport)
	tr.Proxy = nil
	tr.TLSClientConfig = &tls.Config{InsecureSkipVerify: true} //nolint:gosec // see above
}

func remoteDesk(base, token string) *desk {
	tr := &http.Transport{Proxy: http.ProxyFromEnvironment, TLSHandshakeTimeout: 10 * time.Second, DialContext: (&net.Dialer{Timeout: 5 * time.Second}).DialContext}
	return &desk{base: base, token: token, running: true, client: &http.Client{Transport: tr, Timeout: time.Minute}, closers: []func() error{func() error { tr.CloseIdleConnections(); return nil }}}
}

// storeDesk runs the admin API in this process, over a store that it has to itself, or
// shares with gateways over Redis.
func storeDesk(cfg *Config, s *store.Store, closers []func() error) (*desk, error) {
	d := &desk{base: "http://localhost", closers: closers}
	opt, err := localAdmin(cfg, s)
	if err != nil {
		return nil, errors.Join(err, d.close())
	}
	d.client = &http.Client{Transport: inProcess{admin.New(opt)}}
	return d, nil
}

// operator is who runs the command line: whoever can read the configuration's secrets.
type operator struct{}

func (operator) Who(context.Context, *http.Request) (auth.Actor, error) {
	return auth.Actor{Name: "command line", Role: auth.RoleAdmin, Via: "token"}, nil
}

// inProcess answers requests without a network.
type inProcess struct{ handler http.Handler }

func (p inProcess) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.Body == nil {
		r.Body = http.NoBody
	}
	w := &localAnswer{header: http.Header{}, status: http.StatusOK}
	p.handler.ServeHTTP(w, r)
	return &http.Response{
		Status: fmt.Sprint(w.status, " ", http.StatusText(w.status)), StatusCode: w.status, Header: w.header, Body: io.NopCloser(&w.body), Request: r,
	}, nil
}

// localAnswer is an http.ResponseWriter into memory.
type localAnswer struct {
	header http.Header
	status int
	body   bytes.Buffer
}

func (w *localAnswer) Header() http.Header         { return w.header }
func (w *localAnswer) WriteHeader(status int)      { w.status = status }
func (w *localAnswer) Write(b []byte) (int, error) { return w.body.Write(b) }

// call sends JSON, if there is any, and reads the answer into out, if it is not nil.
func (d *desk) call(ctx context.Context, method, path, match string, body map[string]any, out any) ([]byte, error) {
	var in io.Reader
	kind := ""
	if body != nil {
		text, err := json.Marshal(body)
		if err != nil {
			return nil, err
		}
		in, kind = bytes.NewReader(text), "application/json"
	}
	raw, err := d.send(ctx, method, path, match, kind, in)
	if err == nil && out != nil {
		err = json.Unmarshal(raw, out)
	}
	return raw, err
}

func (d *desk) send(ctx context.Context, method, path, match, kind string, body io.Reader) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, method, d.base+admin.Prefix+path, body)
	if err != nil {
		return nil, err
	}
	for name, value := range map[string]string{"Content-Type": kind, "If-Match": match} {
		if value != "" {
			req.Header.Set(name, value)
		}
	}
	if d.token != "" {
		req.Header.Set("Authorization", "Bearer "+d.token)
	}
	resp, err := d.client.Do(req)
	if errors.Is(err, syscall.ECONNREFUSED) {
		return nil, fmt.Errorf("no gateway answers at %s; is `sluice serve` running?", d.base)
	}
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(resp.Body)
	if err != nil {
		return nil, fmt.Errorf("the answer of %s did not come whole: %w", d.base, err)
	}
	if resp.StatusCode >= http.StatusBadRequest {
		return nil, deskError(resp, raw)
	}
	return raw, nil
}

// deskError is what the API says is wrong.
func deskError(resp *http.Response, raw []byte) error {
	var e struct {
		Error struct{ Message, Param string }
	}
	if json.Unmarshal(raw, &e) != nil || e.Error.Message == "" {
		return fmt.Errorf("%s: %.200s", resp.Status, bytes.TrimSpace(raw))
	}
	return errors.New(e.Error.Message)
}

// list reads all pages.
func (d *desk) list(ctx context.Context, q url.Values) (rows []keyRow, raw []json.RawMessage, err error) {
	raw = []json.RawMessage{}
	for {
		var page struct {
			Data []json.RawMessage
			Next string
		}
		if _, err := d.call(ctx, http.MethodGet, "/keys?"+q.Encode(), "", nil, &page); err != nil {
			return nil, nil, err
		}
		for _, one := range page.Data {
			var row keyRow
			if err := json.Unmarshal(one, &row); err != nil {
				return nil, nil, err
			}
			rows, raw = append(rows, row), append(raw, one)
		}
		if page.Next == "" {
			return rows, raw, nil
		}
		q.Set("after", page.Next)
	}
}

// announce writes for the command line of this machine how the admin API is reached: for the
// gateway's own user alone. The function takes it back.
func announce(dir, token, base string) (forget func() error, err error) {
	name, text := filepath.Join(dir, localTokenFile), token+"\n"+base+"\n"
	f, err := os.CreateTemp(dir, localTokenFile+"-*") // mode 600
	if err != nil {
		return nil, fmt.Errorf("write the token for the command line: %w", err)
	}
	_, err = f.WriteString(text)
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(f.Name(), name)
	}
	if err != nil {
		return nil, fmt.Errorf("write the token for the command line: %w", errors.Join(err, os.Remove(f.Name())))
	}
	return func() error {
		if have, err := os.ReadFile(name); err != nil || string(have) != text {
			return nil // another gateway has replaced it
		}
		if err := os.Remove(name); !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		return nil
	}, nil
}
