package store_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"sluice/handlers/auth"
	"sluice/handlers/auth/store"
	"sluice/handlers/auth/store/storetest"
)

// TestBoltKilled kills a process that creates and deletes keys: what it told of is there.
func TestBoltKilled(t *testing.T) {
	if path := os.Getenv("STORE_TEST_VICTIM"); path != "" {
		victim(t, path)
		return
	}
	path := filepath.Join(t.TempDir(), "keys.db")
	for round := range 3 {
		made, gone := killAfter(t, path, 60+40*round)
		s := file(path).Open(t, storetest.Options(t))
		for _, token := range made {
			if !good(s, token) {
				t.Errorf("round %d: %s was acknowledged and is lost", round, token)
			}
		}
		for _, token := range gone {
			if good(s, token) {
				t.Errorf("round %d: %s was deleted and lives", round, token)
			}
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

func killAfter(t *testing.T, path string, lines int) (made, gone []auth.Token) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, os.Args[0], "-test.run=^TestBoltKilled$")
	cmd.Env = append(os.Environ(), "STORE_TEST_VICTIM="+path)
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	told := bufio.NewScanner(out)
	for n := 0; told.Scan(); n++ {
		what, text, _ := strings.Cut(told.Text(), " ")
		if token, err := auth.ParseToken(text); err == nil && what == "made" {
			made = append(made, token)
		} else if err == nil && what == "gone" {
			gone = append(gone, token)
		}
		if n == lines {
			_ = cmd.Process.Kill()
		}
	}
	_ = cmd.Wait()
	if len(made) == 0 || len(gone) == 0 {
		t.Fatalf("the victim told of %d keys made and %d deleted", len(made), len(gone))
	}
	return made, gone
}

func victim(t *testing.T, path string) {
	s := file(path).Open(t, storetest.Options(t))
	for range 10_000 {
		keep, _, err := s.Create(t.Context(), store.Key{Name: "a"})
		if err != nil {
			t.Fatal(err)
		}
		fmt.Println("made", keep.Reveal())
		drop, k, err := s.Create(t.Context(), store.Key{Name: "b"})
		if err == nil {
			_, err = s.Delete(t.Context(), k.ID, 1)
		}
		if err != nil {
			t.Fatal(err)
		}
		fmt.Println("gone", drop.Reveal())
	}
}

func TestBoltInUse(t *testing.T) {
	path := filepath.Join(t.TempDir(), "keys.db")
	s := file(path).Open(t, storetest.Options(t))
	defer s.Close()
	if _, err := store.OpenBolt(path, storetest.Options(t)); err == nil || !strings.Contains(err.Error(), "in use") {
		t.Errorf("opened twice: %v", err)
	}
}

func TestBoltPepper(t *testing.T) {
	path := filepath.Join(t.TempDir(), "keys.db")
	_ = file(path).Open(t, storetest.Options(t)).Close()
	o := storetest.Options(t)
	o.Pepper = storetest.Pepper(t, "q")
	if _, err := store.OpenBolt(path, o); !errors.Is(err, store.ErrPepper) {
		t.Errorf("another pepper: %v", err)
	}
	o.Pepper = nil
	if _, err := store.OpenBolt(path, o); err == nil {
		t.Error("opened without a pepper")
	}
}

// TestBoltDamaged opens files that are damaged: they are moved aside, no key comes back, and
// the store works.
func TestBoltDamaged(t *testing.T) {
	for name, damage := range map[string]func([]byte) []byte{
		"cut":   func(b []byte) []byte { return b[:len(b)/2] },
		"zeros": func(b []byte) []byte { return make([]byte, len(b)) },
		"key": func(b []byte) []byte {
			return []byte(strings.ReplaceAll(string(b), `"name":"victim"`, `"name":"victor"`))
		},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "keys.db")
			s := file(path).Open(t, storetest.Options(t))
			token, _, err := s.Create(t.Context(), store.Key{Name: "victim"})
			if err := errors.Join(err, s.Close()); err != nil {
				t.Fatal(err)
			}
			text, err := os.ReadFile(path)
			if err == nil {
				err = os.WriteFile(path, damage(text), 0o600)
			}
			if err != nil {
				t.Fatal(err)
			}
			s = file(path).Open(t, storetest.Options(t))
			defer s.Close()
			if aside, _ := filepath.Glob(path + ".damaged-*"); len(aside) != 1 {
				t.Errorf("moved aside: %v", aside)
			}
			if good(s, token) {
				t.Error("a key came out of a damaged file")
			}
			if fresh, _, err := s.Create(t.Context(), store.Key{Name: "new"}); err != nil || !good(s, fresh) {
				t.Error(err)
			}
		})
	}
}

func TestBoltForeign(t *testing.T) {
	path := filepath.Join(t.TempDir(), "keys.db")
	if err := os.MkdirAll(path, 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := store.OpenBolt(path, storetest.Options(t)); err == nil {
		t.Error("opened a directory")
	}
}
