// Package redistest starts real Redis servers for tests, on loopback: one, a cluster of
// three, or a primary with a replica and a sentinel. They end with the test, and also when
// its process dies.
//
// Without redis-server on the path tests are skipped, unless CI=true: then they fail.
package redistest

import (
	"bufio"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// patience is how long a server may take to become what a test waits for.
const patience = 20 * time.Second

// Server is one redis-server or sentinel.
type Server struct {
	Addr string // host:port
	Dir  string // where its files are

	t       testing.TB
	args    []string
	process *exec.Cmd
	guard   *exec.Cmd
	stdin   io.WriteCloser // of the guard
}

func binary(t testing.TB) string {
	t.Helper()
	path, err := exec.LookPath("redis-server")
	if err == nil {
		return path
	}
	const missing = "redis-server is not installed: apt-get install redis-server"
	if os.Getenv("CI") == "true" {
		t.Fatal(missing)
	}
	t.Skip("SKIPPED, NOTHING IS PROVEN WITH REDIS: " + missing)
	return ""
}

// Single starts a server that keeps nothing on disk. args are added to its command line:
// "--appendonly", "yes" lets it remember over Kill and Start.
func Single(t testing.TB, args ...string) *Server {
	t.Helper()
	return start(t, freePort(t), args...)
}

func start(t testing.TB, port string, args ...string) *Server {
	t.Helper()
	s := &Server{Addr: "127.0.0.1:" + port, Dir: t.TempDir(), t: t}
	s.args = append([]string{
		"--port", port, "--bind", "127.0.0.1", "--dir", s.Dir, "--save", "", "--daemonize", "no",
		"--logfile", filepath.Join(s.Dir, "log"),
	}, args...)
	t.Cleanup(s.Kill)
	s.Start()
	return s
}

// Start starts the server, again after Kill, with the same address and files. It returns when
// the server answers.
func (s *Server) Start() {
	s.t.Helper()
	s.process = exec.Command(binary(s.t), s.args...)
	if err := s.process.Start(); err != nil {
		s.t.Fatal(err)
	}
	s.guard = exec.Command("sh", "-c", "cat >/dev/null; kill -9 "+strconv.Itoa(s.process.Process.Pid))
	var err error
	if s.stdin, err = s.guard.StdinPipe(); err == nil {
		err = s.guard.Start()
	}
	if err != nil {
		s.t.Fatal(err)
	}
	s.Await("answer", func() bool {
		about, err := s.Do("INFO", "server")
		if err != nil || !strings.Contains(about, "process_id:"+strconv.Itoa(s.process.Process.Pid)+"\r") {
			return false
		}
		answer, err := s.Do("PING") // is refused while it reads its files
		return err == nil && answer == "PONG"
	})
}

// Kill ends the server as kill -9 does. It may be called again.
func (s *Server) Kill() {
	if s.process == nil {
		return
	}
	_ = s.guard.Process.Kill()
	_ = s.stdin.Close()
	_ = s.guard.Wait()
	_ = s.process.Process.Kill()
	_ = s.process.Wait()
	s.process = nil
}

// Await waits until the condition holds, and fails the test if that takes long.
func (s *Server) Await(what string, condition func() bool) {
	s.t.Helper()
	look := time.NewTicker(20 * time.Millisecond)
	defer look.Stop()
	for deadline := time.Now().Add(patience); !condition(); <-look.C {
		if time.Now().After(deadline) {
			log, _ := os.ReadFile(filepath.Join(s.Dir, "log"))
			s.t.Fatalf("redis-server %s does not %s:\n%s", s.Addr, what, log)
		}
	}
}

// Do runs one command on a connection of its own. Arguments have no spaces. A list is
// returned as its lines, an error answer as an error.
func (s *Server) Do(args ...string) (string, error) {
	conn, err := net.DialTimeout("tcp", s.Addr, time.Second)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(5 * time.Second)); err != nil {
		return "", err
	}
	if _, err := fmt.Fprintf(conn, "%s\r\n", strings.Join(args, " ")); err != nil {
		return "", err
	}
	return answer(bufio.NewReader(conn))
}

// Must is Do for what cannot fail.
func (s *Server) Must(args ...string) string {
	s.t.Helper()
	answer, err := s.Do(args...)
	if err != nil {
		s.t.Fatalf("%s: %v", strings.Join(args, " "), err)
	}
	return answer
}

// answer reads one reply of the Redis protocol, version 2.
func answer(r *bufio.Reader) (string, error) {
	line, err := r.ReadString('\n')
	if err != nil {
		return "", err
	}
	line = strings.TrimRight(line, "\r\n")
	if line == "" {
		return "", io.ErrUnexpectedEOF
	}
	kind, rest := line[0], line[1:]
	switch kind {
	case '-':
		return "", fmt.Errorf("redis: %s", rest)
	case '$':
		n, err := strconv.Atoi(rest)
		if err != nil || n < 0 {
			return "", err
		}
		body := make([]byte, n+2)
		if _, err := io.ReadFull(r, body); err != nil {
			return "", err
		}
		return string(body[:n]), nil
	case '*':
		n, err := strconv.Atoi(rest)
		lines := make([]string, max(n, 0))
		for i := range lines {
			if lines[i], err = answer(r); err != nil {
				return "", err
			}
		}
		return strings.Join(lines, "\n"), err
	default:
		return rest, nil
	}
}

// freePort is a port that nobody else takes until the test has ended, while the server is
// down too. It lies below those that systems give to whoever asks for any, and among tests a
// locked file stands for it.
func freePort(t testing.TB) string {
	t.Helper()
	for range 1000 {
		port := strconv.Itoa(20_000 + rand.IntN(12_000))
		name := filepath.Join(os.TempDir(), "sluice-test-port-"+port)
		lock, err := os.OpenFile(name, os.O_CREATE|os.O_RDWR, 0o600)
		if err != nil {
			t.Fatal(err)
		}
		if syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB) == nil {
			if l, err := net.Listen("tcp", "127.0.0.1:"+port); err == nil {
				_ = l.Close()
				t.Cleanup(func() { _ = lock.Close() })
				return port
			}
		}
		_ = lock.Close()
	}
	t.Fatal("no port is free from 20000 to 31999")
	return ""
}
