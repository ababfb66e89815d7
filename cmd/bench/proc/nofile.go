//go:build unix

package proc

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// RaiseNoFile lifts this process's limit of open files to the hard limit, which
// it returns. Processes started later inherit it.
func RaiseNoFile() (uint64, error) {
	var l unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &l); err != nil {
		return 0, fmt.Errorf("read the limit of open files: %w", err)
	}
	l.Cur = l.Max
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &l); err != nil {
		return 0, fmt.Errorf("raise the limit of open files: %w", err)
	}
	return uint64(l.Cur), nil
}
