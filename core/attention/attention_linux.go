package attention

import "syscall"

// pay makes a system call that the scheduler is told of: any does.
func pay() { _, _, _ = syscall.Syscall(syscall.SYS_GETPID, 0, 0, 0) }
