//go:build !linux

package bpf

import (
	"os"
	"time"
)

func onBPFFS(string) (bool, error)   { return false, ErrNotSupported }
func onCgroup2(string) (bool, error) { return false, ErrNotSupported }
func lockFile(*os.File) error        { return ErrNotSupported }
func isGone(error) bool              { return false }
func isFull(error) bool              { return false }
func now() (time.Duration, error)    { return 0, ErrNotSupported }
func eachNetns(func() error) error   { return ErrNotSupported }
func netnsCookie() (uint64, error)   { return 0, ErrNotSupported }

// CgroupID returns the number by which the kernel knows the cgroup of a
// directory.
func CgroupID(string) (uint64, error) { return 0, ErrNotSupported }
