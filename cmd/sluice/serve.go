package main

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"

	"sluice/handlers"
	"sluice/providers/router"
	"sluice/streaming"
)

// gateway is one running server.
type gateway struct {
	cfg    *Config // as it was at the start
	log    *slog.Logger
	level  *slog.LevelVar
	access *handlers.AccessLog
	drain  *handlers.Drain
	api    *http.Server
	admin  *http.Server
	failed chan error

	// nil until start:
	quota   *quota
	keys    *keyring
	configs *reloader
}

// serve runs the gateway until ctx ends, then drains it.
func serve(ctx context.Context, cfg *Config, opts serveOptions, stderr io.Writer) int {
	level := new(slog.LevelVar)
	level.Set(levelOf(cfg))
	log := slog.New(newLogHandler(cfg, stderr, level))
	for _, w := range opts.Warnings {
		log.Warn(w)
	}
	access, closeAccess, err := openAccess(cfg, stderr)
	if err != nil {
		log.Error("cannot open the access log", slog.String("key", "log.access"), slog.Any("error", err))
		return exitFailure
	}
	defer closeAccess()
	tuneHeap(int64(cfg.Server.HeapHeadroom))
	g := &gateway{cfg: cfg, log: log, level: level, access: access, drain: handlers.NewDrain(), failed: make(chan error, 2)}
	defer g.settleUp()
	if err := g.start(opts); err != nil {
		log.Error("cannot start", slog.Any("error", err))
		return exitFailure
	}
	select {
	case err := <-g.failed:
		log.Error("a listener failed", slog.Any("error", err))
		return exitFailure
	case <-ctx.Done():
	}
	g.configs.stay()
	// Only from here on, so that the signal that ended ctx is not taken for the second one.
	again := make(chan os.Signal, 2)
	signal.Notify(again, os.Interrupt, syscall.SIGTERM)
	defer signal.Stop(again)
	return g.stop(again)
}

// settleUp writes down what the limits still hold, once the last answer is settled.
func (g *gateway) settleUp() {
	if g.configs != nil {
		g.configs.shadows.Close()
		g.configs.close()
	}
	if g.quota != nil {
		g.quota.Close()
	}
	if g.keys != nil {
		if err := g.keys.Close(); err != nil {
			g.log.Error("closing the store of the keys", slog.Any("error", err))
		}
	}
}

// start binds both listeners before it serves either.
func (g *gateway) start(opts serveOptions) (err error) {
	if g.keys, err = openKeyring(g.cfg, g.log); err != nil {
		return err
	}
	observer := handlers.NewObserver(g.access)
	g.keys.watch(observer)
	if g.quota, err = newQuota(g.cfg, observer, g.log); err != nil {
		return err
	}
	l := &lasting{
		version: opts.Version, log: g.log, level: g.level, observer: observer, drain: g.drain,
		quota: g.quota, keys: g.keys, places: router.NewPlaces(nil), shadows: router.NewShadows(router.ShadowOptions{}),
	}
	if g.configs, err = newReloader(l, g.cfg, opts.Load); err != nil {
		return err
	}
	g.quota.keepRunning(g.keys.live, g.log)
	s := &g.cfg.Server
	ln, err := net.Listen("tcp", s.Listen)
	if err != nil {
		return fmt.Errorf("server.listen: %w", err)
	}
	g.api = &http.Server{
		Handler:           l,
		ConnContext:       streaming.WithConn,
		BaseContext:       func(net.Listener) context.Context { return g.drain.Base() },
		ReadHeaderTimeout: s.ReadHeaderTimeout.Std(), ReadTimeout: s.ReadHeaderTimeout.Std() + g.cfg.Timeouts.RequestBody.Std(), // net/http lifts it when the body has been read
		IdleTimeout: s.IdleTimeout.Std(), MaxHeaderBytes: int(s.MaxHeader),
		ErrorLog: slog.NewLogLogger(g.log.Handler(), slog.LevelDebug),
	}
	if s.AdminListen != "" {
		admin, err := net.Listen("tcp", s.AdminListen)
		if err != nil {
			_ = ln.Close()
			return fmt.Errorf("server.admin_listen: %w", err)
		}
		handler, err := g.configs.newAdmin(g.cfg, admin.Addr())
		if err != nil {
			return err
		}
		g.admin = &http.Server{Handler: handler, ReadHeaderTimeout: s.ReadHeaderTimeout.Std(), IdleTimeout: s.IdleTimeout.Std(), ErrorLog: slog.NewLogLogger(g.log.Handler(), slog.LevelDebug)}
		if g.cfg.Admin.TLS {
			g.admin.TLSConfig = l.tls()
		}
		g.run(g.admin, admin)
		if err := g.keys.announce(g.cfg, admin.Addr().String()); err != nil {
			return err
		}
		g.log.Info("admin", slog.String("url", adminScheme(g.cfg)+"://"+admin.Addr().String()))
	}
	scheme := "http"
	if s.TLSCert != "" {
		scheme = "https"
		g.api.TLSConfig = l.tls()
	}
	g.run(g.api, ln)
	g.log.Info("listening", slog.String("url", scheme+"://"+ln.Addr().String()+"/v1"), slog.String("version", opts.Version))
	if key := l.newest.Load().madeUp; key != "" {
		g.log.Info("no [[keys]] are configured: this key was made up and holds until the gateway stops", slog.String("key", key))
	}
	return nil
}

// tls serves the certificate that is in force.
func (l *lasting) tls() *tls.Config {
	return &tls.Config{
		MinVersion:     tls.VersionTLS12,
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return l.cert.Load(), nil },
	}
}

func (g *gateway) run(srv *http.Server, ln net.Listener) {
	go func() {
		var err error
		if srv.TLSConfig != nil {
			err = srv.ServeTLS(ln, "", "")
		} else {
			err = srv.Serve(streaming.Listen(ln))
		}
		if !errors.Is(err, http.ErrServerClosed) {
			g.failed <- err
		}
	}()
}

// settleTime is how long answers that were cut may take to write their error and settle.
const settleTime = 5 * time.Second

// stop drains: lame, refusing, cut. A further signal skips to the cut.
func (g *gateway) stop(again <-chan os.Signal) int {
	d := g.configs.newest.Load().cfg.Drain
	g.drain.Lame(d.Delay.Std())
	g.log.Info("draining", slog.Int("running", g.drain.Running()), slog.Duration("delay", d.Delay.Std()), slog.Duration("timeout", d.Timeout.Std()))
	now := false
	select {
	case <-time.After(d.Delay.Std()):
	case <-again:
		now = true
	}
	idle := g.drain.Refuse()
	g.configs.shadows.Stop()
	code := exitOK
	if now || !waitIdle(idle, d.Timeout.Std(), again) {
		if n := g.drain.Running(); n > 0 {
			g.log.Warn("cutting what still runs", slog.Int("running", n))
			code = exitDrained
		}
		g.drain.Cut()
		waitIdle(idle, settleTime, nil)
	}
	waitIdle(g.drain.Gone(), settleTime, nil) // WebSocket clients get a moment for their side of the close
	ctx, cancel := context.WithTimeout(context.Background(), settleTime)
	defer cancel()
	for _, srv := range []*http.Server{g.api, g.admin} {
		if srv != nil && srv.Shutdown(ctx) != nil {
			_ = srv.Close()
		}
	}
	waitIdle(idle, time.Second, nil) // closing the connections ends writes that were stuck
	g.log.Info("stopped", slog.Int("exit", code))
	return code
}

func waitIdle(idle <-chan struct{}, limit time.Duration, again <-chan os.Signal) bool {
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case <-idle:
		return true
	case <-timer.C:
	case <-again:
	}
	return false
}

func newLogHandler(cfg *Config, w io.Writer, level slog.Leveler) slog.Handler {
	o := &slog.HandlerOptions{Level: level}
	if cfg.Log.Format == "json" {
		return slog.NewJSONHandler(w, o)
	}
	return slog.NewTextHandler(w, o)
}

// openAccess opens the access log; the function closes it after the last answer.
func openAccess(cfg *Config, stderr io.Writer) (*handlers.AccessLog, func(), error) {
	var out io.Writer = stderr
	file := func() {}
	switch cfg.Log.Access {
	case "off":
		return nil, file, nil
	case "stderr":
	default:
		f, err := os.OpenFile(cfg.Log.Access, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
		if err != nil {
			return nil, nil, err
		}
		out, file = f, func() { _ = f.Close() }
	}
	buf := bufio.NewWriterSize(out, 64<<10)
	log := handlers.NewAccessLog(buf, cfg.Log.Format == "json", cfg.Log.AccessQueue, func() { _ = buf.Flush() })
	return log, func() { log.Close(); file() }, nil
}
