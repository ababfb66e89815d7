package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"sluice/cmd/bench/mock"
)

// startSluice runs the gateway as people run it: authentication, metering,
// heartbeats and access log on. The log goes to a file.
func (b *benchRun) startSluice(ctx context.Context) (*child, error) {
	addr, err1 := freeAddr()
	admin, err2 := freeAddr()
	if err := errors.Join(err1, err2); err != nil {
		return nil, err
	}
	conf := filepath.Join(b.dir, "sluice.toml")
	if err := os.WriteFile(conf, []byte(sluiceConfig(b.dir, addr, admin, b.mock.addr)), 0o600); err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, b.sluiceBin, "serve", "--config", conf)
	cmd.Dir = b.dir
	cmd.Env = append(os.Environ(), "GOMAXPROCS=1")
	// A benchmark has nothing to drain.
	c, err := b.start(cmd, b.targetCore, "sluice.log", syscall.SIGKILL)
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
