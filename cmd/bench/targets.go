package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"sluice/cmd/bench/mock"
	"sluice/cmd/bench/proc"
)

// apiKey is what the clients send; only Sluice looks at it.
const apiKey = "sk-bench-0123456789abcdef0123456789abcdef"

// child is a process that the benchmark started.
type child struct {
	cmd  *exec.Cmd
	with *child // which it needs, and which ends with it; nil: none
	addr string // host:port it listens on; empty for spinners
	end  syscall.Signal
	done chan struct{} // closed when it has ended
}

// stop ends the process and waits for it.
func (c *child) stop() {
	_ = c.cmd.Process.Signal(c.end)
	select {
	case <-c.done:
	case <-time.After(3 * time.Second):
		_ = c.cmd.Process.Kill()
		<-c.done
	}
	if c.with != nil {
		c.with.stop()
	}
}

// start runs cmd pinned to core, its output appended to a log file. The signal
// end stops it, and it is sent too if this program dies.
func (b *benchRun) start(cmd *exec.Cmd, core int, logName string, end syscall.Signal) (*child, error) {
	log, err := os.OpenFile(filepath.Join(b.dir, logName), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, err
	}
	defer log.Close() // the child has its own
	cmd.Stderr = log
	if cmd.Stdout == nil {
		cmd.Stdout = log
	}
	if err := proc.StartPinned(cmd, core, end); err != nil {
		return nil, fmt.Errorf("start %s: %w", filepath.Base(cmd.Path), err)
	}
	c := &child{cmd: cmd, end: end, done: make(chan struct{})}
	go func() { _ = cmd.Wait(); close(c.done) }()
	return c, nil
}

// role starts this program again in one of its server roles, on one core with
// one thread of Go code, and waits for its address.
func (b *benchRun) role(ctx context.Context, core int, args ...string) (*child, error) {
	cmd := exec.CommandContext(ctx, b.exe, args...)
	cmd.Env = append(os.Environ(), "GOMAXPROCS=1")
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer r.Close()
	cmd.Stdout = w
	c, err := b.start(cmd, core, strings.TrimLeft(args[0], "_")+".log", syscall.SIGKILL)
	_ = w.Close()
	if err != nil {
		return nil, err
	}
	if err := r.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
		c.stop()
		return nil, err
	}
	line, err := bufio.NewReader(r).ReadString('\n')
	if err != nil {
		c.stop()
		return nil, fmt.Errorf("%s told no address: %w", args[0], err)
	}
	c.addr = strings.TrimSpace(line)
	return c, nil
}

// startTarget starts a gateway in front of the mock and waits until it answers.
func (b *benchRun) startTarget(ctx context.Context, name string) (*child, error) {
	var c *child
	var err error
	switch name {
	case nginx:
		c, err = b.startNginx(ctx)
	case reverseProxy:
		c, err = b.role(ctx, b.targetCore, roleProxy, b.mock.addr)
	case sluice, limited, shared:
		c, err = b.startSluice(ctx, name)
	default:
		err = errors.New("unknown target")
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	if err := ready(ctx, c); err != nil {
		c.stop()
		return nil, fmt.Errorf("%s: %w; its log ends: %s", name, err, b.logTail(name))
	}
	return c, nil
}

// ready asks for one small answer until it is right.
func ready(ctx context.Context, c *child) error {
	ctx, cancel := context.WithTimeout(ctx, 15*time.Second)
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		err := probe(ctx, c.addr)
		if err == nil {
			return nil
		}
		select {
		case <-c.done:
			return errors.New("ended at its start")
		case <-ctx.Done():
			return fmt.Errorf("gave no right answer: %w", err)
		case <-tick.C:
		}
	}
}

func probe(ctx context.Context, addr string) error {
	s := mock.Shape{Tokens: 10, Seed: 1}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+addr+"/v1/chat/completions", bytes.NewReader(s.Request()))
	if err != nil {
		return err
	}
	req.Header.Set("Authorization", "Bearer "+apiKey)
	req.Header.Set("Content-Type", "application/json")
	req.Close = true
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	if err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK || !bytes.Contains(body, []byte(mock.Text(1, 10))) {
		return fmt.Errorf("%s: %.200s", resp.Status, body)
	}
	return nil
}

// freeAddr finds a loopback port that nobody listens on now.
func freeAddr() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", fmt.Errorf("find a free port: %w", err)
	}
	defer l.Close()
	return l.Addr().String(), nil
}

func (b *benchRun) logTail(name string) string {
	if name == reverseProxy {
		name = strings.TrimLeft(roleProxy, "_")
	}
	text, err := os.ReadFile(filepath.Join(b.dir, name+".log"))
	if err != nil {
		return err.Error()
	}
	return string(bytes.TrimSpace(text[max(0, len(text)-600):]))
}
