package store

import (
	"errors"
	"os"
	"path/filepath"
)

// OpenMemory opens a store that ends with the process: for a gateway that has nowhere to keep
// one. It is a file without a name in the directory for temporary files, so that nothing is
// left behind, however the process ends.
func OpenMemory(o Options) (*Store, error) {
	dir, err := os.MkdirTemp("", "sluice-")
	if err != nil {
		return nil, err
	}
	s, err := OpenBolt(filepath.Join(dir, "keys.db"), o)
	return s, errors.Join(err, os.RemoveAll(dir))
}
