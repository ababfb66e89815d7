package redistest

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Watched is a primary and a replica that a sentinel watches.
type Watched struct {
	Name             string // of the primary, to ask the sentinel for
	Sentinel         *Server
	Primary, Replica *Server // as they were at the start
}

// Sentinel starts a primary, a replica and one sentinel that fails over a second after the
// primary has died.
func Sentinel(t testing.TB, args ...string) *Watched {
	t.Helper()
	w := &Watched{Name: "quota", Primary: Single(t, args...)}
	host, port, _ := net.SplitHostPort(w.Primary.Addr)
	w.Replica = Single(t, append([]string{"--replicaof", host + " " + port, "--repl-diskless-sync-delay", "0"}, args...)...)
	w.Replica.Await("follow its primary", func() bool {
		info, err := w.Replica.Do("INFO", "replication")
		return err == nil && strings.Contains(info, "master_link_status:up")
	})
	w.Sentinel = watch(t, w.Name, host, port)
	w.Sentinel.Await("know the replica", func() bool {
		list, err := w.Sentinel.Do("SENTINEL", "REPLICAS", w.Name)
		_, replica, _ := net.SplitHostPort(w.Replica.Addr)
		return err == nil && strings.Contains(list, replica)
	})
	return w
}

func watch(t testing.TB, name, host, port string) *Server {
	t.Helper()
	own := freePort(t)
	s := &Server{Addr: "127.0.0.1:" + own, Dir: t.TempDir(), t: t}
	file := filepath.Join(s.Dir, "sentinel.conf")
	conf := fmt.Sprintf("port %s\nbind 127.0.0.1\ndir %s\nlogfile %s\nsentinel monitor %s %s %s 1\n"+
		"sentinel down-after-milliseconds %s 1000\nsentinel failover-timeout %s 5000\n",
		own, s.Dir, filepath.Join(s.Dir, "log"), name, host, port, name, name)
	if err := os.WriteFile(file, []byte(conf), 0o600); err != nil {
		t.Fatal(err)
	}
	s.args = []string{file, "--sentinel"}
	t.Cleanup(s.Kill)
	s.Start()
	return s
}

// Lag lets the replica follow no more: what is written from now on is lost in a failover.
func (w *Watched) Lag() {
	w.Replica.t.Helper()
	w.Replica.Must("CONFIG", "SET", "masterauth", "a-password-that-the-primary-does-not-have")
	w.Primary.Must("CLIENT", "KILL", "TYPE", "replica")
	w.Replica.Await("lose its primary", func() bool {
		info, err := w.Replica.Do("INFO", "replication")
		return err == nil && strings.Contains(info, "master_link_status:down")
	})
}
