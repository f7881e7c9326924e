//go:build unix && !linux

package controlplane

import "syscall"

// childAttributes put a part in a process group of its own, so that a
// terminal's Ctrl-C reaches only us and we stop the parts in order.
func childAttributes() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }

// awaitExit does nothing here: Wait follows.
func awaitExit(int) {}

// awaitStopped does nothing here: the signal is on its way.
func awaitStopped(int) {}
