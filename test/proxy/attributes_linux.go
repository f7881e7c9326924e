package proxy

import "syscall"

// attributes end the process with the thread that started it: it must not
// outlive a test that is killed.
func attributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}
