package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
)

// startNginx runs nginx as a streaming proxy ought to be set up.
func (b *benchRun) startNginx(ctx context.Context) (*child, error) {
	bin, err := nginxPath()
	if err != nil {
		return nil, err
	}
	addr, err := freeAddr()
	if err != nil {
		return nil, err
	}
	conf := filepath.Join(b.dir, "nginx.conf")
	if err := os.WriteFile(conf, []byte(nginxConfig(b.dir, addr, b.mock.addr, b.noFile)), 0o644); err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, bin, "-p", b.dir, "-c", conf, "-e", filepath.Join(b.dir, "nginx.log"))
	// Only its master can end the worker, so even a cancelled run asks it to.
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	c, err := b.start(cmd, b.targetCore, "nginx.log", syscall.SIGTERM)
	if err != nil {
		return nil, err
	}
	c.addr = addr
	return c, nil
}

func nginxPath() (string, error) {
	for _, p := range []string{"nginx", "/usr/sbin/nginx", "/usr/local/sbin/nginx"} {
		if bin, err := exec.LookPath(p); err == nil {
			return bin, nil
		}
	}
	return "", errors.New("nginx is not installed")
}

// nginxConfig departs from the stock settings only where they would make the
// comparison one of settings: HTTP/1.1 with keep-alive to the upstream (stock
// closes after every request), no response buffering (stock would collect
// tokens), no limit of requests per connection (stock reconnects every 1,000),
// and enough connections (stock has 512, and each stream takes two).
func nginxConfig(dir, listen, upstream string, files uint64) string {
	const unlimited = 1_000_000_000
	return fmt.Sprintf(`daemon off;
worker_processes 1;
worker_rlimit_nofile %[4]d;
pid %[1]s/nginx.pid;
events { worker_connections %[4]d; }
http {
  access_log off;
  client_body_temp_path %[1]s/nginx-body;
  proxy_temp_path %[1]s/nginx-proxy;
  fastcgi_temp_path %[1]s/nginx-fastcgi;
  uwsgi_temp_path %[1]s/nginx-uwsgi;
  scgi_temp_path %[1]s/nginx-scgi;
  client_body_buffer_size 64k;
  keepalive_timeout 900s;
  keepalive_requests %[5]d;
  upstream mock {
    server %[3]s;
    keepalive 1024;
    keepalive_requests %[5]d;
    keepalive_timeout 900s;
  }
  server {
    listen %[2]s backlog=4096;
    location / {
      proxy_pass http://mock;
      proxy_http_version 1.1;
      proxy_set_header Connection "";
      proxy_buffering off;
      proxy_read_timeout 600s;
    }
  }
}
`, dir, listen, upstream, files, unlimited)
}
