package proc

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"syscall"
	"testing"
	"time"
)

func TestParseStat(t *testing.T) {
	tests := []struct {
		name, line string
		want       stat
		bad        bool
	}{
		{"plain", "42 (nginx) S 7 42 42 0 -1 4194560 100 0 3 0 150 75 0 0 20 0 1 0 9", stat{ppid: 7, ticks: 225}, false},
		{"name with spaces and parentheses", "42 (a) b (c) R 1 1 1 0 -1 0 0 0 0 0 1 2 0 0", stat{ppid: 1, ticks: 3}, false},
		{"no name", "42 S 7 42", stat{}, true},
		{"short", "42 (x) S 7 42 42", stat{}, true},
		{"not a number", "42 (x) S 7 42 42 0 -1 0 0 0 0 0 one 2 0 0", stat{}, true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := parseStat([]byte(tt.line))
			if (err != nil) != tt.bad || got != tt.want {
				t.Errorf("parseStat = %+v, %v; want %+v, error %v", got, err, tt.want, tt.bad)
			}
		})
	}
}

func TestParseRSS(t *testing.T) {
	got, err := parseRSS([]byte("Name:\tx\nVmHWM:\t   99 kB\nVmRSS:\t  1234 kB\nThreads:\t1\n"))
	if err != nil || got != 1234<<10 {
		t.Errorf("parseRSS = %d, %v", got, err)
	}
	for _, bad := range []string{"", "Name: x\n", "VmRSS: 12 MB\n", "VmRSS: x kB\n"} {
		if _, err := parseRSS([]byte(bad)); err == nil {
			t.Errorf("parseRSS(%q) gave no error", bad)
		}
	}
}

func TestParseBusy(t *testing.T) {
	got, err := parseBusy([]byte("cpu  10 2 30 1000 500 4 5 6 0 0\ncpu0 1 1 1 1 1 1 1 1 0 0\n"))
	if err != nil || got != 57 {
		t.Errorf("parseBusy = %d, %v; want 57", got, err)
	}
	for _, bad := range []string{"", "cpu 1 2 3\n", "intr 1 2 3 4 5 6 7 8\n", "cpu a 2 3 4 5 6 7 8\n"} {
		if _, err := parseBusy([]byte(bad)); err == nil {
			t.Errorf("parseBusy(%q) gave no error", bad)
		}
	}
}

func TestOwnProcess(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("needs /proc")
	}
	child := exec.Command("sleep", "30")
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = child.Process.Kill(); _ = child.Wait() }()
	tree, err := Tree(os.Getpid())
	if err != nil || !slices.Contains(tree, child.Process.Pid) || tree[0] != os.Getpid() {
		t.Fatalf("Tree = %v, %v; want it to hold %d", tree, err, child.Process.Pid)
	}
	if rss, err := RSS(tree); err != nil || rss < 1<<20 {
		t.Errorf("RSS = %d, %v", rss, err)
	}
	before, err := CPU(tree)
	if err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(5 * time.Second); time.Now().Before(end); {
		if now, err := CPU(tree); err != nil || now > before {
			if err != nil {
				t.Fatal(err)
			}
			return
		}
	}
	t.Error("CPU time did not grow in five seconds of work")
}

func TestStartPinned(t *testing.T) {
	cores, err := Cores()
	if err != nil {
		t.Skip(err)
	}
	core := cores[len(cores)-1]
	out, err := os.CreateTemp(t.TempDir(), "status")
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("grep", "Cpus_allowed_list", "/proc/self/status")
	cmd.Stdout = out
	if err := StartPinned(cmd, core, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Fatal(err)
	}
	got, _ := os.ReadFile(out.Name())
	if want := fmt.Sprintf("Cpus_allowed_list:\t%d\n", core); string(got) != want {
		t.Errorf("child runs on %q, want core %d", got, core)
	}
	if after, err := Cores(); err != nil || !slices.Equal(after, cores) {
		t.Errorf("own cores after the start = %v, %v; want %v", after, err, cores)
	}
}
