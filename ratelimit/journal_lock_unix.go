//go:build unix && !solaris && !aix

package ratelimit

import (
	"os"
	"syscall"
)

// lockFile opens a file that one process at a time can have open this way. The lock ends
// with the file, and with the process.
func lockFile(name string) (*os.File, error) {
	f, err := os.OpenFile(name, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		_ = f.Close()
		return nil, errLocked
	}
	return f, nil
}
