// Command sluice is a streaming-first gateway for language models.
//
// This package is the only one that knows all the others: it reads the
// configuration (config*.go, with the source of every value), offers the
// command line (cli_*.go) and wires the rooms together.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	// A second signal ends the process at once, unless a command listens for it.
	context.AfterFunc(ctx, stop)
	os.Exit(run(ctx, os.Args[1:], os.Environ(), os.Stdin, os.Stdout, os.Stderr))
}
