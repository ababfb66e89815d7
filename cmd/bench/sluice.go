package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"sluice/cmd/bench/mock"
)

// startSluice runs the gateway as people run it: authentication, metering,
// heartbeats and access log on. The log goes to a file. name says which limits it has.
func (b *benchRun) startSluice(ctx context.Context, name string) (*child, error) {
	addr, err1 := freeAddr()
	admin, err2 := freeAddr()
	if err := errors.Join(err1, err2); err != nil {
		return nil, err
	}
	text := sluiceConfig(b.dir, addr, admin, b.mock.addr)
	if name != sluice {
		text += quotaConfig
	}
	var redis *child
	if name == shared {
		var err error
		if redis, err = b.startRedis(ctx); err != nil {
			return nil, err
		}
		text += fmt.Sprintf("\n[redis]\nurl = \"redis://%s\"\n", redis.addr)
	}
	c, err := b.runSluice(ctx, name, text)
	if err != nil {
		if redis != nil {
			redis.stop()
		}
		return nil, err
	}
	c.addr, c.with = addr, redis
	return c, nil
}

func (b *benchRun) runSluice(ctx context.Context, name, text string) (*child, error) {
	conf := filepath.Join(b.dir, name+".toml")
	if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, b.sluiceBin, "serve", "--config", conf)
	cmd.Dir = b.dir
	cmd.Env = append(os.Environ(), "GOMAXPROCS=1")
	return b.start(cmd, b.targetCore, name+".log", syscall.SIGKILL) // a benchmark has nothing to drain
}

// quotaConfig are limits of five buckets that nobody reaches.
const quotaConfig = `
[[limits]]
id = "bench"
scope = "key"
requests_per_minute = 100_000_000
tokens_per_minute = 1_000_000_000
input_tokens_per_day = 1_000_000_000
output_tokens_per_day = 1_000_000_000
concurrent = 10_000
`

// startRedis runs a redis-server that keeps nothing, on the core of the harness.
func (b *benchRun) startRedis(ctx context.Context) (*child, error) {
	addr, err := freeAddr()
	if err != nil {
		return nil, err
	}
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, err
	}
	bin, err := exec.LookPath("redis-server")
	if err != nil {
		return nil, fmt.Errorf("redis-server is not installed: %w", err)
	}
	cmd := exec.CommandContext(ctx, bin, "--bind", host, "--port", port, "--save", "", "--appendonly", "no", "--dir", b.dir)
	c, err := b.start(cmd, b.harnessCore, "redis-server.log", syscall.SIGKILL)
	if err != nil {
		return nil, err
	}
	c.addr = addr
	return c, nil
}

// sluiceConfig names what the benchmark must choose and leaves every other key at
// its default, for the defaults are what is measured.
func sluiceConfig(dir, listen, admin, upstream string) string {
	return fmt.Sprintf(`[server]
listen = %q
admin_listen = %q

[log]
access = %q

[demo]
enabled = false

[[upstreams]]
name = %q
kind = "openai"
base_url = "http://%s/v1"
api_key = "sk-upstream"
models = [%q]

[[keys]]
name = "bench"
key = %q
`, listen, admin, filepath.Join(dir, "access.log"), mock.Model, upstream, mock.Model, apiKey)
}

// findSluice returns the binary to measure: the given one, or one built from
// this module into dir.
func findSluice(ctx context.Context, given, dir string) (string, error) {
	if given != "" {
		path, err := filepath.Abs(given)
		if err == nil {
			_, err = os.Stat(path)
		}
		return path, err
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Minute)
	defer cancel()
	bin := filepath.Join(dir, "sluice")
	out, err := exec.CommandContext(ctx, "go", "build", "-o", bin, "sluice/cmd/sluice").CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("no --sluice given and go build sluice/cmd/sluice failed: %w: %.300s", err, out)
	}
	return bin, nil
}
