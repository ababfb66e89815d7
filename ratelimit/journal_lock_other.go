//go:build !unix || solaris || aix

package ratelimit

import "os"

// lockFile opens a file that one process at a time can have open this way, where files
// that are open cannot be removed. Elsewhere two processes need two directories.
func lockFile(name string) (*os.File, error) {
	if err := os.Remove(name); err != nil && !os.IsNotExist(err) {
		return nil, errLocked
	}
	f, err := os.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600)
	if os.IsExist(err) {
		return nil, errLocked
	}
	return f, err
}
