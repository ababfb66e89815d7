// Command bench knows what one relayed token costs: it runs Sluice, nginx and a
// plain httputil.ReverseProxy side by side before the same mock upstream, under
// the same load, and reports CPU time, added latency and memory as ratios.
//
// The target under test has one core to itself; the mock and the clients share
// another. Rounds are interleaved, ratios are formed within a round, and medians
// of them are reported: absolute figures of one machine mean little on another.
// WebSocket, which the others do not translate, is compared with Sluice's own SSE.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"os/signal"
	"syscall"
	"time"

	"sluice/cmd/bench/load"
	"sluice/cmd/bench/mock"
	"sluice/cmd/bench/proc"
)

// Roles that the program plays in processes of its own: hidden sub-commands.
const (
	roleMock  = "__mock"
	roleProxy = "__proxy"
	roleLoad  = "__load"
	roleSpin  = "__spin"
)

// longest bounds every process the program starts, and the whole run.
const longest = 90 * time.Minute

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	ctx, cancel := context.WithTimeout(ctx, longest)
	err := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	cancel()
	stop()
	switch {
	case err == nil || errors.Is(err, flag.ErrHelp):
	case errors.Is(err, errGate):
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	default:
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(2)
	}
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	if _, err := proc.RaiseNoFile(); err != nil {
		return err
	}
	if len(args) > 0 {
		switch args[0] {
		case roleMock:
			return serve(ctx, stdout, new(mock.Server).Serve)
		case roleProxy:
			return serveProxy(ctx, args[1:], stdout)
		case roleLoad:
			return runLoad(ctx, os.Stdin, stdout)
		case roleSpin:
			return proc.Spin(ctx)
		}
	}
	opts, err := parseOptions(args, stderr)
	if err != nil {
		return err
	}
	return bench(ctx, opts, stdout, stderr)
}

// serve listens on a free loopback port and tells it on the first line of stdout.
func serve(ctx context.Context, stdout io.Writer, do func(net.Listener) error) error {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	defer context.AfterFunc(ctx, func() { _ = l.Close() })()
	fmt.Fprintln(stdout, l.Addr())
	return do(l)
}

// serveProxy is the yardstick from the standard library: as little code as a Go
// relay can have, with enough idle connections and immediate flushing.
func serveProxy(ctx context.Context, args []string, stdout io.Writer) error {
	if len(args) != 1 {
		return errors.New(roleProxy + " needs the upstream's address")
	}
	upstream := &url.URL{Scheme: "http", Host: args[0]}
	proxy := &httputil.ReverseProxy{
		Rewrite:       func(r *httputil.ProxyRequest) { r.SetURL(upstream) },
		FlushInterval: -1,
		Transport: &http.Transport{
			MaxIdleConnsPerHost: 20_000,
			IdleConnTimeout:     15 * time.Minute,
			DisableCompression:  true,
		},
	}
	return serve(ctx, stdout, func(l net.Listener) error {
		srv := &http.Server{Handler: proxy, ReadHeaderTimeout: time.Minute}
		if err := srv.Serve(l); !errors.Is(err, net.ErrClosed) && !errors.Is(err, http.ErrServerClosed) {
			return err
		}
		return nil
	})
}

// runLoad executes the job on stdin and writes its result to stdout, both JSON.
func runLoad(ctx context.Context, stdin io.Reader, stdout io.Writer) error {
	var job load.Job
	if err := json.NewDecoder(stdin).Decode(&job); err != nil {
		return fmt.Errorf("read the job: %w", err)
	}
	res, err := load.Run(ctx, job)
	if err != nil {
		return fmt.Errorf("%s load: %w", job.Pattern, err)
	}
	return json.NewEncoder(stdout).Encode(res)
}
