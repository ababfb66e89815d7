//go:build !linux

package main

import (
	"errors"
	"os"
)

func isTerminal(f *os.File) bool {
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}

// hideInput is not known here.
func hideInput(*os.File) (show func(), err error) {
	return nil, errors.New("hiding what is typed is not possible on this system")
}
