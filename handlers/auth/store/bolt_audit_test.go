package store_test

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"sluice/handlers/auth"
	"sluice/handlers/auth/store/storetest"
)

// TestAuditKilled kills a process that writes its audit log and ends sessions: what it told of
// is there, and no session comes back.
func TestAuditKilled(t *testing.T) {
	const variable = "STORE_TEST_AUDIT_VICTIM"
	if path := os.Getenv(variable); path != "" {
		auditVictim(t, path)
		return
	}
	path := filepath.Join(t.TempDir(), "keys.db")
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, os.Args[0], "-test.run=^TestAuditKilled$")
	cmd.Env = append(os.Environ(), variable+"="+path)
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	var told []string
	for lines := bufio.NewScanner(out); lines.Scan(); {
		if id, ok := strings.CutPrefix(lines.Text(), "wrote "); ok {
			if told = append(told, id); len(told) == 50 {
				_ = cmd.Process.Kill()
			}
		}
	}
	_ = cmd.Wait()
	if len(told) < 50 {
		t.Fatalf("the victim told of %d entries", len(told))
	}
	s := file(path).Open(t, storetest.Options(t))
	defer s.Close()
	log, err := s.Audit(10_000, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	entries, err := log.Read(t.Context(), "", 10_000)
	if err != nil {
		t.Fatal(err)
	}
	there := map[string]bool{}
	for _, e := range entries {
		there[e.ID] = true
		if _, err := s.FindSession(t.Context(), auth.SessionID([]byte(e.On))); err == nil && e.Code == "ended" {
			t.Errorf("the session %q was ended and lives", e.On)
		}
	}
	for _, id := range told {
		if !there[id] {
			t.Errorf("the entry %s was acknowledged and is lost", id)
		}
	}
}

// auditVictim opens and ends sessions, and writes an entry for each that has ended.
func auditVictim(t *testing.T, path string) {
	s := file(path).Open(t, storetest.Options(t))
	log, err := s.Audit(10_000, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	for n := range 10_000 {
		id := auth.SessionID([]byte(fmt.Sprintf("%032d", n)))
		now := time.Now()
		err := s.OpenSession(t.Context(), id, &auth.Session{Name: "ada", Way: "password", Opened: now, Seen: now}, now.Add(time.Hour))
		if err == nil {
			err = s.EndSession(t.Context(), id)
		}
		e := &auth.AuditEntry{At: now, Node: "a", Action: "DELETE /session", On: string(id[:]), Code: "ended", Status: 204}
		if err == nil {
			err = log.Append(t.Context(), e)
		}
		if err != nil {
			t.Fatal(err)
		}
		fmt.Println("wrote", e.ID)
	}
}
