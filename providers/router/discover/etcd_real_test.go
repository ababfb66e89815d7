package discover

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"testing"
	"time"
)

// TestEtcdServer follows keys in a real server.
func TestEtcdServer(t *testing.T) {
	etcd, err := exec.LookPath("etcd")
	if err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal(err)
		}
		t.Skip("etcd is not installed (apt-get install etcd-server)")
	}
	client, peer := "http://"+freePort(t), "http://"+freePort(t)
	cmd := exec.Command(etcd, "--data-dir", t.TempDir(), "--listen-client-urls", client, "--advertise-client-urls", client,
		"--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer, "--initial-cluster", "default="+peer, "--logger", "zap", "--log-level", "error")
	var said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &said, &said
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	call := func(path string, body map[string][]byte) error {
		text, err := json.Marshal(body)
		if err != nil {
			return err
		}
		a, err := http.Post(client+path, "application/json", bytes.NewReader(text))
		if err != nil {
			return err
		}
		defer a.Body.Close()
		if a.StatusCode != http.StatusOK {
			return fmt.Errorf("status %d", a.StatusCode)
		}
		return nil
	}
	put := func(key, value string) error {
		return call("/v3/kv/put", map[string][]byte{"key": []byte(key), "value": []byte(value)})
	}
	late := time.Now().Add(30 * time.Second)
	for put("llm/a", "10.0.0.1:8000") != nil {
		if time.Now().After(late) {
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
			t.Fatalf("etcd does not start: %s", said.String())
		}
		pauseForTest()
	}
	lists, _ := follow(t, Etcd{URL: client, Prefix: "llm/", Client: &http.Client{}})
	await(t, lists, "10.0.0.1:8000")
	for _, step := range []struct {
		key, value string
		want       []string
	}{
		{"llm/b", `{"Addr":"10.0.0.2:8000"}`, []string{"10.0.0.1:8000", "10.0.0.2:8000"}},
		{"llm0", "nobody:1", nil}, // the first key behind the prefix
		{"llm/c", "10.0.0.3:8000", []string{"10.0.0.1:8000", "10.0.0.2:8000", "10.0.0.3:8000"}},
	} {
		if err := put(step.key, step.value); err != nil {
			t.Fatal(err)
		}
		if step.want != nil {
			await(t, lists, step.want...)
		}
	}
	if err := call("/v3/kv/deleterange", map[string][]byte{"key": []byte("llm/a")}); err != nil {
		t.Fatal(err)
	}
	await(t, lists, "10.0.0.2:8000", "10.0.0.3:8000")
}

// pauseForTest lies between two looks at a process that nothing tells of.
func pauseForTest() { <-time.After(50 * time.Millisecond) }

func freePort(t *testing.T) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	return ln.Addr().String()
}
