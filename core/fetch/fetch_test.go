package fetch

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/go-logr/logr"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fetcherOf has read these sources once.
func fetcherOf(t *testing.T, s Sources, log logr.Logger, sources ...Source) *Fetcher {
	t.Helper()
	f := New(s, "", log)
	readAgain(f, sources...)
	return f
}

// readAgain reads sources as libraries do, and returns what is there.
func readAgain(f *Fetcher, sources ...Source) (there []string) {
	f.Begin()
	defer f.End()
	for i := range sources {
		c, err := f.Content(&sources[i])
		if err != nil {
			continue
		}
		if code, err := c.Read(); err == nil {
			there = append(there, string(code))
		}
	}
	return there
}

// place puts a file in place whole, as operators' tools do.
func place(t *testing.T, name, text string) {
	t.Helper()
	tmp := filepath.Join(t.TempDir(), "new")
	if err := os.WriteFile(tmp, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(tmp, name); err != nil {
		t.Fatal(err)
	}
}

func TestFilesAreFoundInTheirDirectorysPlace(t *testing.T) {
	root := t.TempDir()
	dir := filepath.Join(root, "modules")
	source := Source{File: filepath.Join(dir, "f.wasm")}
	if err := errors.Join(os.Mkdir(dir, 0o700), os.Mkdir(dir+".new", 0o700)); err != nil {
		t.Fatal(err)
	}
	place(t, source.File, "old")
	place(t, filepath.Join(dir+".new", "f.wasm"), "new")
	f := fetcherOf(t, Sources{}, logr.Discard(), source)
	ctx, cancel := context.WithCancel(t.Context())
	look, again, ended := make(chan time.Time), make(chan struct{}, 100), make(chan error)
	go func() { ended <- f.run(ctx, look, func() { again <- struct{}{} }) }()
	expect := func(want string) {
		t.Helper()
		for !slices.Equal(readAgain(f, source), []string{want}) {
			<-again
		}
	}
	<-again
	expect("old")
	if err := errors.Join(os.Rename(dir, dir+".old"), os.Rename(dir+".new", dir)); err != nil {
		t.Fatal(err)
	}
	look <- time.Time{}
	<-again // whether or not it is read before
	expect("new")
	place(t, source.File, "newer")
	expect("newer")
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}
