// Command wall is a scripted OpenAI-compatible upstream for trying out gateways and clients: it streams a text that
// proves its own completeness, slowly or fast, and fails in every way that a request asks for.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"sluice/providers/providertest/wall"
)

const intro = `wall is a scripted OpenAI-compatible upstream.

  wall [flags]                     serve until interrupted
  wall text SEED N                 print the first N tokens of a chain
  wall verify SEED < FILE          tell how many whole tokens a text has, or where it leaves the chain

Each request brings its own script, in the model's name or in a tag anywhere in its text:

  curl -N 127.0.0.1:9100/v1/chat/completions -d '{"model":"wall:tokens=40,delay=50ms,reset=30","stream":true,
      "messages":[{"role":"user","content":"hello"}]}'
  "content": "hello [[wall tokens=40 fail=2:503]]"

"|" separates the scripts of successive calls, "N*" repeats one: [[wall 2*status=503 retry_after=1 | tokens=5]].
A tag [[wall@NAME ...]] speaks to the wall of that name only. AT is a number of deltas (0: after the role), or
pre (instead of headers), headers (after them), end (after the finish). DUR is like 50ms or 2s.

  GET  /wall/requests   what arrived and how it ended        GET  /wall/help    the keys
  GET  /wall/stats      totals, active calls, connections    POST /wall/reset   forget
  POST /wall/script     set the default script; ?model=NAME or ?path=PATH set another

Flags:
`

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	os.Exit(run(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}

// run is the command; it returns the exit status: 2 for wrong usage, 1 for failure.
func run(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	flags := flag.NewFlagSet("wall", flag.ContinueOnError)
	flags.SetOutput(stderr)
	listen := flags.String("listen", "127.0.0.1:9100", "`address` to serve on")
	name := flags.String("name", "", "`name` by which a tag can address this wall")
	key := flags.String("api-key", "", "refuse calls without this bearer `key`")
	script := flags.String("script", "", "default `script`, in the form of a tag's inside")
	models := flags.String("models", "", "more model `names` to list, separated by commas")
	flags.Usage = func() { usage(flags) }
	if err := flags.Parse(args); errors.Is(err, flag.ErrHelp) {
		return 0
	} else if err != nil {
		return 2
	}
	if flags.NArg() > 0 {
		return offline(flags.Args(), stdin, stdout, stderr)
	}
	options := []wall.Option{wall.Named(*name), wall.APIKey(*key)}
	if *models != "" {
		options = append(options, wall.Models(strings.Split(*models, ",")...))
	}
	w := wall.New(options...)
	if err := w.SetDefaultSpec(*script); err != nil {
		_, _ = fmt.Fprintln(stderr, "wall: -script:", err)
		return 2
	}
	return serve(ctx, *listen, w, stdout, stderr)
}

func usage(flags *flag.FlagSet) {
	out := flags.Output()
	_, _ = io.WriteString(out, intro)
	flags.PrintDefaults()
	_, _ = fmt.Fprintf(out, "\nKeys of a script:\n%s", wall.Help())
}

func serve(ctx context.Context, addr string, w *wall.Wall, stdout, stderr io.Writer) int {
	s, err := wall.Listen(addr, w)
	if err != nil {
		_, _ = fmt.Fprintln(stderr, "wall:", err)
		return 1
	}
	_, _ = fmt.Fprintln(stdout, "wall: serving", s.URL())
	<-ctx.Done()
	if err := s.Close(); err != nil {
		_, _ = fmt.Fprintln(stderr, "wall:", err)
		return 1
	}
	return 0
}
