//go:build !linux

package proc

import (
	"context"
	"errors"
	"os/exec"
	"syscall"
)

var errLinux = errors.New("needs Linux")

// Cores needs Linux.
func Cores() ([]int, error) { return nil, errLinux }

// StartPinned needs Linux to pin; elsewhere it only starts cmd.
func StartPinned(cmd *exec.Cmd, _ int, _ syscall.Signal) error { return cmd.Start() }

// Spin needs Linux.
func Spin(context.Context) error { return errLinux }
