package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"sync"
	"time"

	"github.com/spf13/cobra"
)

// Bounds of one benchmark.
const (
	maxBenchStreams  = 10000
	maxBenchDuration = time.Hour
	maxBenchTokens   = 1 << 20
	minBenchGrace    = 5 * time.Second // for streams that still run at the end
	maxBenchGrace    = 30 * time.Second
)

// benchOptions are what the user asks for.
type benchOptions struct {
	model    string
	prompt   string
	streams  int
	duration time.Duration
	tokens   int
}

func (o benchOptions) validate() error {
	switch {
	case o.streams < 1 || o.streams > maxBenchStreams:
		return fmt.Errorf("--streams must be from 1 to %d", maxBenchStreams)
	case o.duration <= 0 || o.duration > maxBenchDuration:
		return fmt.Errorf("--duration must be above 0 and at most %s", maxBenchDuration)
	case o.tokens < 1 || o.tokens > maxBenchTokens:
		return fmt.Errorf("--stream-tokens must be from 1 to %d", maxBenchTokens)
	}
	return nil
}

func (a *app) benchCommand() *cobra.Command {
	var f targetFlags
	var o benchOptions
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "bench",
		Short: "Load an OpenAI-compatible server with streams and measure what arrives",
		Long: `Keep a number of streamed answers running for a while and measure what arrives:
time to the first token, time between tokens, tokens per second, and every
answer that failed or was cut. Works on any OpenAI-compatible server, so the
same figures can be had with and without the gateway in between.

Exit codes: 0 all answers whole, 1 not.`,
		Example: `  sluice bench --model demo-echo --streams 200 --duration 30s
  sluice bench --url http://127.0.0.1:11434 --model llama3.1 --streams 4`,
		GroupID: "client",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := o.validate(); err != nil {
				return err
			}
			t, err := a.target(cmd, &f)
			if err != nil {
				return err
			}
			o.model = f.model
			if err := a.bench(cmd.Context(), t, o, asJSON); err != nil {
				return &exitError{exitFailure, err}
			}
			return nil
		},
	}
	f.add(cmd)
	cmd.Flags().IntVar(&o.streams, "streams", 10, "streams at once")
	cmd.Flags().DurationVar(&o.duration, "duration", 10*time.Second, "how long new streams are started")
	cmd.Flags().IntVar(&o.tokens, "stream-tokens", 100, "most tokens of one answer (max_tokens)")
	cmd.Flags().StringVar(&o.prompt, "prompt", "Count upwards from one, in words, and do not stop.", "the prompt of every stream")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON, times in milliseconds")
	return cmd
}

func (a *app) bench(ctx context.Context, t target, o benchOptions, asJSON bool) error {
	if o.model == "" {
		var err error
		if o.model, err = pickModel(ctx, t.client()); err != nil {
			return err
		}
	}
	b, err := newBencher(t, o)
	if err != nil {
		return err
	}
	defer b.client.CloseIdleConnections()
	total := b.run(ctx)
	report := total.report(o.model, t.base)
	if asJSON {
		text, err := json.MarshalIndent(report, "", "  ")
		if err != nil {
			return err
		}
		fmt.Fprintf(a.stdout, "%s\n", text)
	} else {
		report.write(a.stdout)
	}
	switch {
	case report.Complete == 0:
		return errors.New("not one answer was whole")
	case report.Truncated > 0 || report.ErrorCount > 0:
		return fmt.Errorf("%d answers were cut and %d failed", report.Truncated, report.ErrorCount)
	}
	return nil
}

// bencher runs streams against one target.
type bencher struct {
	client  *http.Client
	target  target
	options benchOptions
	body    []byte        // of every request
	grace   time.Duration // for streams that still run at the end
}

func newBencher(t target, o benchOptions) (*bencher, error) {
	body, err := json.Marshal(map[string]any{
		"model": o.model, "stream": true, "max_tokens": o.tokens,
		"stream_options": map[string]any{"include_usage": true},
		"messages":       []map[string]string{{"role": "user", "content": o.prompt}},
	})
	if err != nil {
		return nil, fmt.Errorf("build the request: %w", err)
	}
	return &bencher{
		client: t.httpClient(o.streams), target: t, options: o, body: body,
		grace: min(max(o.duration, minBenchGrace), maxBenchGrace),
	}, nil
}

// run keeps the streams going until the duration is over or ctx ends, then
// gives running ones a bounded grace. Every worker counts for itself; the
// counts are added up when all are done.
func (b *bencher) run(ctx context.Context) *benchStats {
	start := time.Now()
	ending, stop := context.WithTimeout(ctx, b.options.duration)
	defer stop()
	running, cut := context.WithTimeout(ctx, b.options.duration+b.grace)
	defer cut()
	stats := make([]*benchStats, b.options.streams)
	var wg sync.WaitGroup
	for i := range stats {
		stats[i] = newBenchStats()
		wg.Go(func() { b.worker(ending, running, stats[i]) })
	}
	wg.Wait()
	total := newBenchStats()
	for _, s := range stats {
		total.add(s)
	}
	total.elapsed = time.Since(start)
	return total
}

// worker starts one stream after another, at least one. After a failure it
// pauses, longer each time in a row, so that a dead server is not stormed.
func (b *bencher) worker(ending, running context.Context, stats *benchStats) {
	pause := 20 * time.Millisecond
	for first := true; first || ending.Err() == nil; first = false {
		end := b.stream(running, stats)
		if running.Err() != nil && end != endComplete {
			stats.ends[endUnfinished]++
			return
		}
		stats.ends[end]++
		if end == endComplete {
			pause = 20 * time.Millisecond
			continue
		}
		timer := time.NewTimer(pause + rand.N(pause))
		select {
		case <-ending.Done():
		case <-timer.C:
		}
		timer.Stop()
		pause = min(2*pause, time.Second)
	}
}

// request builds the POST of one stream.
func (b *bencher) request(ctx context.Context) (*http.Request, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, b.target.base+"/chat/completions", bytes.NewReader(b.body))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Accept", "text/event-stream")
	if b.target.key != "" {
		req.Header.Set("Authorization", "Bearer "+b.target.key)
	}
	return req, nil
}
