package controlplane

import (
	"errors"
	"os/exec"
	"runtime"
	"sync"
)

var errStopped = errors.New("control plane has been stopped")

// A spawner starts processes from one OS thread. The kernel sends a child its
// parent-death signal when the thread that started it ends, so that thread
// must live as long as the children may: until close.
type spawner struct {
	mu     sync.Mutex // guards following
	tasks  chan func()
	closed bool
}

func newSpawner() *spawner {
	s := &spawner{tasks: make(chan func())}
	go func() {
		runtime.LockOSThread() // and never unlock: the thread ends with the goroutine
		for task := range s.tasks {
			task()
		}
	}()
	return s
}

func (s *spawner) start(cmd *exec.Cmd) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return errStopped
	}
	done := make(chan error)
	s.tasks <- func() { done <- cmd.Start() }
	return <-done
}

// close ends the thread, and with it children that are still there.
func (s *spawner) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	close(s.tasks)
}
