package proc

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Cores lists the cores that the calling thread may run on, ascending.
func Cores() ([]int, error) {
	var set unix.CPUSet
	if err := unix.SchedGetaffinity(0, &set); err != nil {
		return nil, fmt.Errorf("read the CPU affinity: %w", err)
	}
	var cores []int
	for cpu := 0; cpu < len(set)*int(unsafe.Sizeof(set[0]))*8; cpu++ {
		if set.IsSet(cpu) {
			cores = append(cores, cpu)
		}
	}
	return cores, nil
}

// StartPinned starts cmd on one core and asks the kernel to send it the signal
// when this process dies. A child inherits the affinity of the thread that forks it,
// so that thread is moved for the length of the fork and then put back. A
// negative core leaves the affinity as it is.
func StartPinned(cmd *exec.Cmd, core int, orphaned syscall.Signal) error {
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Pdeathsig = orphaned
	if core < 0 {
		return cmd.Start()
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var old, one unix.CPUSet
	if err := unix.SchedGetaffinity(0, &old); err != nil {
		return fmt.Errorf("read the CPU affinity: %w", err)
	}
	one.Set(core)
	if err := unix.SchedSetaffinity(0, &one); err != nil {
		return fmt.Errorf("pin to core %d: %w", core, err)
	}
	err := cmd.Start()
	return errors.Join(err, unix.SchedSetaffinity(0, &old))
}

// Spin burns the core it is pinned to at idle priority (SCHED_IDLE, sched(7)),
// until ctx ends. Such a task gives way to every other one at once, but it
// keeps a virtual core from halting, whose wake-up costs more than the work
// that is measured.
func Spin(ctx context.Context) error {
	if err := idlePriority(); err != nil {
		return err
	}
	for ctx.Err() == nil {
		for range 1 << 22 {
		}
	}
	return nil
}

// idlePriority moves every thread of this process to SCHED_IDLE.
func idlePriority() error {
	tasks, err := os.ReadDir("/proc/self/task")
	if err != nil {
		return fmt.Errorf("list threads: %w", err)
	}
	for _, t := range tasks {
		tid, err := strconv.Atoi(t.Name())
		if err != nil {
			continue
		}
		attr := unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: unix.SCHED_IDLE}
		if err := unix.SchedSetAttr(tid, &attr, 0); err != nil && !errors.Is(err, unix.ESRCH) {
			return fmt.Errorf("set idle priority: %w", err)
		}
	}
	return nil
}
