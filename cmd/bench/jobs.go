package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"syscall"
	"time"

	"sluice/cmd/bench/load"
	"sluice/cmd/bench/mock"
)

// job is the load of one test.
func (b *benchRun) job(test string, c *child) load.Job {
	j := load.Job{
		Addr: c.addr, Mock: b.mock.addr, Key: apiKey, PID: c.cmd.Process.Pid, Pattern: load.Closed,
		Shape: mock.Shape{Stream: true, Usage: b.usage}, Warm: b.scale.warm, Window: b.scale.window,
	}
	switch test {
	case paced:
		j.Pattern, j.Workers, j.Shape.Every = load.Paced, 200, 20*time.Millisecond
		j.Shape.Tokens = int((load.Ramp + j.Warm + j.Window + time.Second) / j.Shape.Every)
	case wsPaced, wsPaced4:
		j = b.job(paced, c)
		j.Lanes = 1
		if test == wsPaced4 {
			j.Lanes = 4
		}
	case burst:
		j.Workers, j.Shape.Tokens = 16, 256
	case wsBurst:
		j = b.job(burst, c)
		j.Lanes = 1
	case whole:
		j.Workers, j.Shape = 32, mock.Shape{Tokens: 50}
	case ttft:
		j.Pattern, j.Rate, j.Shape.Tokens, j.Shape.Every = load.Open, 100, 32, 10*time.Millisecond
	case quota:
		j.Workers, j.Shape.Tokens, j.Shape.Every = 128, 64, 5*time.Millisecond
	case short:
		j.Workers, j.Shape.Tokens = 32, 64
	case idle:
		j.Pattern, j.Workers, j.Rate = load.Idle, b.scale.idleStreams, 500
		j.Shape.Tokens, j.Shape.Every = 1000, 5*time.Second
		j.Warm, j.Window = b.scale.idleHold/2, b.scale.idleHold/2
	case wsIdle:
		j = b.job(idle, c)
		j.Pattern, j.Lanes = load.Hold, 1
	}
	return j
}

// hangUp adds to res what 200 clients leave behind when all of them go at once.
func (b *benchRun) hangUp(ctx context.Context, c *child, res load.Result) (load.Result, error) {
	job := b.job(paced, c)
	job.Pattern, job.Shape.Tokens = load.HangUp, 750 // 15 s
	gone, err := b.load(ctx, job)
	if err != nil {
		return res, err
	}
	res.LeftBehind, res.Opened = gone.LeftBehind, gone.Opened
	res.Truncated += gone.Truncated
	res.Wrong += gone.Wrong
	res.Failed += gone.Failed
	res.Streams += gone.Streams
	res.Samples = append(res.Samples, gone.Samples...)
	if int(gone.Opened) < job.Workers {
		return res, fmt.Errorf("only %d of %d streams flowed before the hang-up", gone.Opened, job.Workers)
	}
	return res, nil
}

// checkPaced refuses a window in which the streams did not all flow.
func checkPaced(j load.Job, res load.Result) error {
	want := float64(j.Workers) * res.Window.Seconds() / j.Shape.Every.Seconds()
	switch {
	case res.OutsideWindow > 0:
		return fmt.Errorf("a stream ended %v before the window did", res.OutsideWindow)
	case float64(res.Events) < 0.97*want || float64(res.Events) > 1.03*want:
		return fmt.Errorf("%d events in the window, expected %.0f: the target or the machine does not keep up", res.Events, want)
	}
	return nil
}

// load runs the job in a process of its own on the harness's core, after the
// mock has come to rest.
func (b *benchRun) load(ctx context.Context, job load.Job) (load.Result, error) {
	var res load.Result
	if err := b.settle(ctx); err != nil {
		return res, err
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Minute)
	defer cancel()
	in, err := json.Marshal(job)
	if err != nil {
		return res, err
	}
	cmd := exec.CommandContext(ctx, b.exe, roleLoad)
	cmd.Env = append(os.Environ(), "GOMAXPROCS=1")
	var out bytes.Buffer
	cmd.Stdin, cmd.Stdout = bytes.NewReader(in), &out
	c, err := b.start(cmd, b.harnessCore, "load.log", syscall.SIGKILL)
	if err != nil {
		return res, err
	}
	<-c.done
	if err := json.Unmarshal(out.Bytes(), &res); err != nil {
		return res, fmt.Errorf("load process: %v: %s", c.cmd.ProcessState, b.logTail("load"))
	}
	return res, nil
}

// settle waits until the mock generates nothing.
func (b *benchRun) settle(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		n, err := load.Active(ctx, b.mock.addr)
		if err != nil || n == 0 {
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%d streams of an earlier test do not end", n)
		case <-tick.C:
		}
	}
}

// spinners keeps the cores from halting while a test runs at low load.
func (b *benchRun) spinners(ctx context.Context) (stop func(), err error) {
	var started []*child
	stop = func() {
		for _, c := range started {
			c.stop()
		}
	}
	cores := []int{b.harnessCore, b.targetCore}
	for _, core := range slices.Compact(cores) {
		if core < 0 {
			continue
		}
		cmd := exec.CommandContext(ctx, b.exe, roleSpin)
		cmd.Env = append(os.Environ(), "GOMAXPROCS=1", "GODEBUG=asyncpreemptoff=1")
		c, err := b.start(cmd, core, "spin.log", syscall.SIGKILL)
		if err != nil {
			stop()
			return nil, err
		}
		started = append(started, c)
	}
	return stop, nil
}
