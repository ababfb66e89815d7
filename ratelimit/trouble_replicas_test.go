package ratelimit

import (
	"bytes"
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

func TestReplicasCount(t *testing.T) {
	for name, c := range map[string]struct {
		seen, least int
		file        string // "" is none
		want        int
		told        bool
	}{
		"nothing known":          {want: 1},
		"seen":                   {seen: 3, want: 3},
		"at least":               {seen: 2, least: 4, want: 4},
		"more than at least":     {seen: 5, least: 4, want: 5},
		"remembered":             {file: "7\n", want: 7},
		"remembered, at least":   {file: "3\n", least: 4, want: 4},
		"seen and remembered":    {seen: 2, file: "7\n", want: 2},
		"a file of something":    {file: "seven", want: 1, told: true},
		"a file of nonsense":     {file: "-3", want: 1, told: true},
		"a file of far too many": {file: "99999999", least: 2, want: 2, told: true},
	} {
		t.Run(name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "gateways")
			if c.file != "" {
				if err := os.WriteFile(file, []byte(c.file), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			var said bytes.Buffer
			r := NewReplicas(ReplicasOptions{Seen: func() int { return c.seen }, Least: c.least, File: file, Log: slog.New(slog.NewTextHandler(&said, nil))})
			if n := r.Count(); n != c.want {
				t.Errorf("%d, want %d", n, c.want)
			}
			if told := strings.Contains(said.String(), "level=WARN"); told != c.told {
				t.Errorf("log: %s", said.String())
			}
		})
	}
}

// TestReplicasRemembered: a gateway that starts while the store is away has its share of what
// the one before it knew.
func TestReplicasRemembered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		file := filepath.Join(t.TempDir(), "gateways")
		var seen atomic.Int64
		run := func(meanwhile func()) {
			r := NewReplicas(ReplicasOptions{Seen: func() int { return int(seen.Load()) }, File: file})
			ctx, cancel := context.WithCancel(context.Background())
			done := make(chan struct{})
			go func() { defer close(done); r.Run(ctx) }()
			synctest.Wait()
			meanwhile()
			cancel()
			<-done
		}
		after := func(want int) {
			t.Helper()
			if n := NewReplicas(ReplicasOptions{Seen: func() int { return 0 }, File: file}).Count(); n != want {
				t.Errorf("the next process counts %d, want %d", n, want)
			}
		}
		run(func() { time.Sleep(time.Minute) })
		after(1)
		run(func() {
			seen.Store(3)
			time.Sleep(6 * time.Second)
			after(3) // without an orderly end
			seen.Store(4)
		})
		after(4)
		seen.Store(0) // the store is away from the start
		run(func() { time.Sleep(time.Minute) })
		after(4)
		names, err := filepath.Glob(file + "*")
		if err != nil || len(names) != 1 {
			t.Errorf("files %v, %v", names, err)
		}
	})
}
