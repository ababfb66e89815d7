package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"slices"
	"strings"

	"sluice/cmd/bench/load"
	"sluice/cmd/bench/proc"
)

// benchRun is one run of the program. One goroutine uses it.
type benchRun struct {
	options
	scale       scale
	exe, dir    string
	noFile      uint64 // limit of open files
	harnessCore int    // -1: not pinned
	targetCore  int
	mock        *child
	progress    io.Writer
	notes       []string
	cells       []cell
}

// cell is one test of one target in one round.
type cell struct {
	Round        int
	Test, Target string
	Result       load.Result
	Err          string `json:",omitempty"`
}

func bench(ctx context.Context, o options, stdout, stderr io.Writer) error {
	b, err := newRun(ctx, o, stderr)
	if err != nil {
		return err
	}
	defer b.close()
	if o.truncation > 0 {
		err = b.truncationRun(ctx)
	} else {
		err = b.rounds(ctx)
	}
	if err != nil {
		return err
	}
	return b.report(stdout)
}

func newRun(ctx context.Context, o options, progress io.Writer) (*benchRun, error) {
	b := &benchRun{options: o, scale: o.scale(), progress: progress}
	var err error
	if b.exe, err = os.Executable(); err != nil {
		return nil, err
	}
	if b.noFile, err = proc.RaiseNoFile(); err != nil {
		return nil, err
	}
	if b.dir, err = os.MkdirTemp("", "bench-"); err != nil {
		return nil, err
	}
	// nginx started by root runs its worker as another user.
	if err := os.Chmod(b.dir, 0o755); err != nil {
		return nil, err
	}
	b.chooseCores()
	b.fitFiles()
	if b.mock, err = b.role(ctx, b.harnessCore, roleMock); err != nil {
		b.close()
		return nil, err
	}
	b.checkTargets(ctx)
	if err := ctx.Err(); err != nil {
		b.close()
		return nil, err
	}
	if len(b.targets) == 0 {
		b.close()
		return nil, errors.New("no target can run: " + strings.Join(b.notes, "; "))
	}
	return b, nil
}

func (b *benchRun) close() {
	if b.mock != nil {
		b.mock.stop()
	}
	if b.keep {
		fmt.Fprintln(b.progress, "kept", b.dir)
		return
	}
	_ = os.RemoveAll(b.dir)
}

func (b *benchRun) note(format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	b.notes = append(b.notes, text)
	fmt.Fprintln(b.progress, "note:", text)
}

func (b *benchRun) chooseCores() {
	cores, err := proc.Cores()
	switch {
	case err != nil:
		b.harnessCore, b.targetCore = -1, -1
		b.note("nothing is pinned, so figures are rough: %v", err)
	case len(cores) == 1:
		b.harnessCore, b.targetCore = cores[0], cores[0]
		b.note("there is one core only: target, mock and clients share it, so figures are rough")
	default:
		b.harnessCore, b.targetCore = cores[0], cores[1]
	}
}

// fitFiles keeps the idle test within the limit of open files: the target needs
// two for each stream.
func (b *benchRun) fitFiles() {
	if most := (int(min(b.noFile, math.MaxInt32)) - 500) / 2; b.scale.idleStreams > most {
		b.note("idle holds %d streams instead of %d: the limit of open files is %d", most, b.scale.idleStreams, b.noFile)
		b.scale.idleStreams = most
	}
}

// checkTargets starts every target once and drops those that do not answer here:
// nginx that is not installed, Sluice that is not built.
func (b *benchRun) checkTargets(ctx context.Context) {
	b.targets = slices.DeleteFunc(b.targets, func(name string) bool {
		err := b.tryTarget(ctx, name)
		if err != nil {
			b.note("%s is left out: %v", name, err)
		}
		return err != nil
	})
}

func (b *benchRun) tryTarget(ctx context.Context, name string) error {
	if name == sluice || name == limited || name == shared {
		var err error
		if b.sluiceBin, err = findSluice(ctx, b.sluiceBin, b.dir); err != nil {
			return err
		}
	}
	c, err := b.startTarget(ctx, name)
	if err != nil {
		return err
	}
	c.stop()
	return nil
}

// rounds runs every test of every target; the order of targets rotates.
func (b *benchRun) rounds(ctx context.Context) error {
	for round := range b.options.rounds {
		order := slices.Concat(b.targets[round%len(b.targets):], b.targets[:round%len(b.targets)])
		if err := b.round(ctx, round, order); err != nil {
			return err
		}
		for _, test := range fresh {
			if err := b.freshRound(ctx, round, test, order); err != nil {
				return err
			}
		}
	}
	return ctx.Err()
}

// freshRound runs a test with every target started for it alone.
func (b *benchRun) freshRound(ctx context.Context, round int, test string, order []string) error {
	for _, name := range order {
		if !b.asked(test) || !takes(name, test) {
			continue
		}
		c, err := b.startTarget(ctx, name)
		if err != nil {
			return err
		}
		b.test(ctx, round, test, name, c)
		c.stop()
		if err := ctx.Err(); err != nil {
			return err
		}
	}
	return nil
}

// takes reports whether a target has what a test is about.
func takes(target, test string) bool {
	switch target {
	case sluice:
		return true
	case limited, shared:
		return test == quota
	default:
		return test != quota && !slices.Contains(overWS, test)
	}
}

// round runs all tests but the fresh ones. The targets live through the round, so that the
// same test of all of them follows one upon the other.
func (b *benchRun) round(ctx context.Context, round int, order []string) error {
	running := map[string]*child{}
	defer func() {
		for _, c := range running {
			c.stop()
		}
	}()
	for _, test := range sequence(b.tests, round) {
		if slices.Contains(fresh, test) {
			continue
		}
		if test == ttft {
			b.test(ctx, round, test, direct, b.mock)
		}
		for _, name := range order {
			if !takes(name, test) {
				continue
			}
			if running[name] == nil {
				c, err := b.startTarget(ctx, name)
				if err != nil {
					return err
				}
				running[name] = c
			}
			b.test(ctx, round, test, name, running[name])
			if err := ctx.Err(); err != nil {
				return err
			}
		}
	}
	return nil
}

// sequence is the order of the tests in a round: those over WebSocket come after
// and before their like over SSE in turn, so that neither has the older process.
func sequence(tests []string, round int) []string {
	tests = slices.Clone(tests)
	for i := 1; i < len(tests) && round%2 == 1; i++ {
		if slices.Contains(overWS, tests[i]) && !slices.Contains(overWS, tests[i-1]) {
			tests[i], tests[i-1] = tests[i-1], tests[i]
		}
	}
	return tests
}

// test runs one test of one target and files its cell.
func (b *benchRun) test(ctx context.Context, round int, name, target string, c *child) {
	fmt.Fprintf(b.progress, "round %d  %-8s %-13s", round+1, name, target)
	res, err := b.measure(ctx, name, c)
	done := cell{Round: round, Test: name, Target: target, Result: res}
	if err != nil {
		done.Err = err.Error()
		fmt.Fprintln(b.progress, " gave no result")
		b.note("round %d, %s, %s: %v", round+1, name, target, err)
	} else {
		fmt.Fprintln(b.progress, brief(name, res))
	}
	b.cells = append(b.cells, done)
}

func (b *benchRun) measure(ctx context.Context, name string, c *child) (load.Result, error) {
	if name == paced || name == wsPaced || name == wsPaced4 || name == whole || name == quota {
		stop, err := b.spinners(ctx)
		if err != nil {
			return load.Result{}, err
		}
		defer stop()
	}
	job := b.job(name, c)
	res, err := b.load(ctx, job)
	if err != nil {
		return res, err
	}
	if job.Pattern == load.Paced {
		return res, checkPaced(job, res)
	}
	if name != short {
		return res, nil
	}
	return b.hangUp(ctx, c, res)
}

// truncationRun sends many short streams through each target from few workers:
// the load under which a relay that mishandles request bodies cuts answers. Half
// of the requests are small, half too large for one ordinary write buffer.
func (b *benchRun) truncationRun(ctx context.Context) error {
	for _, name := range b.targets {
		c, err := b.startTarget(ctx, name)
		if err != nil {
			return err
		}
		fmt.Fprintf(b.progress, "%d streams through %s", b.truncation, name)
		for i, prompt := range []int{0, 6000} {
			done := cell{Round: i, Test: short, Target: name}
			job := b.job(short, c)
			job.Workers, job.Count, job.Shape.Prompt = 8, (b.truncation+i)/2, prompt
			done.Result, err = b.load(ctx, job)
			if err == nil {
				done.Result, err = b.hangUp(ctx, c, done.Result)
			}
			if err != nil {
				done.Err = err.Error()
				b.note("%s: %v", name, err)
			}
			b.cells = append(b.cells, done)
			fmt.Fprintf(b.progress, ", %.1f s", done.Result.Elapsed.Seconds())
		}
		c.stop()
		fmt.Fprintln(b.progress)
	}
	return ctx.Err()
}
