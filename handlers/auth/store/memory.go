package store

import (
	"errors"
	"os"
	"path/filepath"
)

// sharedMemory is a directory that Linux has where nothing else can be written.
var sharedMemory = "/dev/shm"

// OpenMemory opens a store that ends with the process: for a gateway that has nowhere to keep
// one. It is a file without a name in the directory for temporary files, or where there is
// none, as in a small container, in shared memory: nothing is left behind, however the
// process ends.
func OpenMemory(o Options) (*Store, error) {
	dir, err := os.MkdirTemp("", "sluice-")
	if err != nil {
		var why error
		if dir, why = os.MkdirTemp(sharedMemory, "sluice-"); why != nil {
			return nil, errors.Join(err, why)
		}
	}
	s, err := OpenBolt(filepath.Join(dir, "keys.db"), o)
	return s, errors.Join(err, os.RemoveAll(dir))
}
