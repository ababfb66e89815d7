// Package proc knows what the benchmark asks of the operating system: which
// cores it may use, processes pinned to one core, idle-priority spinners, and
// the CPU time and resident memory of a process tree. Everything beyond the
// file descriptor limit needs Linux.
package proc

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strconv"
	"time"
)

// userHz is the unit of utime and stime in /proc/PID/stat: 1/100 s on every
// architecture Go runs on (proc(5), sysconf(_SC_CLK_TCK)).
const userHz = 100

// stat is what is needed of /proc/PID/stat.
type stat struct {
	ppid  int
	ticks uint64 // utime + stime
}

// parseStat reads one /proc/PID/stat line. The command name may hold spaces and
// parentheses, so fields are counted from the last closing one.
func parseStat(line []byte) (stat, error) {
	i := bytes.LastIndexByte(line, ')')
	if i < 0 {
		return stat{}, errors.New("stat line without a command name")
	}
	// After the name: state ppid pgrp session tty tpgid flags minflt cminflt
	// majflt cmajflt utime stime.
	f := bytes.Fields(line[i+1:])
	if len(f) < 13 {
		return stat{}, fmt.Errorf("stat line with %d fields after the name", len(f))
	}
	ppid, err1 := strconv.Atoi(string(f[1]))
	utime, err2 := strconv.ParseUint(string(f[11]), 10, 64)
	stime, err3 := strconv.ParseUint(string(f[12]), 10, 64)
	if err := errors.Join(err1, err2, err3); err != nil {
		return stat{}, fmt.Errorf("stat line: %w", err)
	}
	return stat{ppid: ppid, ticks: utime + stime}, nil
}

// parseRSS takes VmRSS, in bytes, from /proc/PID/status.
func parseRSS(status []byte) (int64, error) {
	for line := range bytes.Lines(status) {
		rest, ok := bytes.CutPrefix(line, []byte("VmRSS:"))
		if !ok {
			continue
		}
		f := bytes.Fields(rest)
		if len(f) != 2 || string(f[1]) != "kB" {
			return 0, fmt.Errorf("VmRSS line %q", line)
		}
		kb, err := strconv.ParseInt(string(f[0]), 10, 64)
		if err != nil {
			return 0, fmt.Errorf("VmRSS: %w", err)
		}
		return kb << 10, nil
	}
	return 0, errors.New("status without VmRSS")
}

// Tree lists pid and all its descendants that live now.
func Tree(pid int) ([]int, error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, fmt.Errorf("list processes: %w", err)
	}
	children := map[int][]int{}
	for _, e := range entries {
		id, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		s, err := readStat(id)
		if err != nil {
			continue // it ended meanwhile
		}
		children[s.ppid] = append(children[s.ppid], id)
	}
	tree := []int{pid}
	for i := 0; i < len(tree); i++ {
		tree = append(tree, children[tree[i]]...)
	}
	return tree, nil
}

// CPU is the user and system time used so far by the given processes, in steps
// of 10 ms.
func CPU(pids []int) (time.Duration, error) {
	var ticks uint64
	for _, pid := range pids {
		s, err := readStat(pid)
		if err != nil {
			return 0, err
		}
		ticks += s.ticks
	}
	return time.Duration(ticks) * (time.Second / userHz), nil
}

// Busy is the time that all cores together have spent on anything but idling, in
// steps of 10 ms, including what the hypervisor took from this machine.
func Busy() (time.Duration, error) {
	text, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0, fmt.Errorf("CPU time of the machine: %w", err)
	}
	ticks, err := parseBusy(text)
	return time.Duration(ticks) * (time.Second / userHz), err
}

// parseBusy sums the first line of /proc/stat: user nice system idle iowait irq
// softirq steal, without idle and iowait.
func parseBusy(text []byte) (ticks uint64, err error) {
	line, _, _ := bytes.Cut(text, []byte("\n"))
	f := bytes.Fields(line)
	if len(f) < 9 || string(f[0]) != "cpu" {
		return 0, fmt.Errorf("stat line %q", line)
	}
	for _, i := range []int{1, 2, 3, 6, 7, 8} {
		n, err := strconv.ParseUint(string(f[i]), 10, 64)
		if err != nil {
			return 0, fmt.Errorf("stat line: %w", err)
		}
		ticks += n
	}
	return ticks, nil
}

// RSS is the resident memory of the given processes in bytes. Pages that
// several of them share count once for each.
func RSS(pids []int) (int64, error) {
	var sum int64
	for _, pid := range pids {
		status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
		if err != nil {
			return 0, fmt.Errorf("resident memory: %w", err)
		}
		rss, err := parseRSS(status)
		if err != nil {
			return 0, fmt.Errorf("resident memory of %d: %w", pid, err)
		}
		sum += rss
	}
	return sum, nil
}

func readStat(pid int) (stat, error) {
	line, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return stat{}, fmt.Errorf("CPU time: %w", err)
	}
	return parseStat(line)
}
