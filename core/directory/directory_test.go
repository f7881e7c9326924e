package directory

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
)

func must(t *testing.T, errs ...error) {
	t.Helper()
	for _, err := range errs {
		if err != nil {
			t.Fatal(err)
		}
	}
}

// next waits for a change of this file.
func next(t *testing.T, w *Watcher, file string) {
	t.Helper()
	must(t, os.WriteFile(file, nil, 0o600))
	for e := range w.Events() {
		if e.Name == file {
			return
		}
	}
	t.Fatal("it was closed")
}

func TestDirectoriesThatTakeThePlaceOfOthersAreFollowed(t *testing.T) {
	root := t.TempDir()
	dir, other := filepath.Join(root, "dir"), filepath.Join(root, "other")
	for name, replace := range map[string]func() error{
		"moved":   func() error { return os.Rename(dir, filepath.Join(root, "old")) },
		"removed": func() error { return os.RemoveAll(dir) },
	} {
		t.Run(name, func(t *testing.T) {
			must(t, os.Mkdir(dir, 0o700), os.Mkdir(other, 0o700))
			defer os.RemoveAll(dir)
			w, err := New()
			must(t, err)
			defer w.Close()
			if news, err := w.Follow(dir); !news || err != nil {
				t.Fatalf("at first: %t, %v", news, err)
			}
			if news, err := w.Follow(dir); news || err != nil {
				t.Errorf("nothing has changed: %t, %v", news, err)
			}
			must(t, replace())
			if news, err := w.Follow(dir); news || !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("it is gone: %t, %v", news, err)
			}
			must(t, os.Rename(other, dir))
			if news, err := w.Follow(dir); !news || err != nil {
				t.Errorf("there is another: %t, %v", news, err)
			}
			next(t, w, filepath.Join(dir, "f"))
		})
	}
}

func TestLinksThatLeadElsewhereAreFollowed(t *testing.T) {
	root := t.TempDir()
	link := filepath.Join(root, "link")
	must(t, os.Mkdir(filepath.Join(root, "a"), 0o700), os.Mkdir(filepath.Join(root, "b"), 0o700), os.Symlink("a", link))
	w, err := New()
	must(t, err)
	defer w.Close()
	_, err = w.Follow(link)
	must(t, err, os.Remove(link), os.Symlink("b", link))
	if news, err := w.Follow(link); !news || err != nil {
		t.Errorf("it leads elsewhere: %t, %v", news, err)
	}
	next(t, w, filepath.Join(link, "f"))
	if news, err := w.Follow(); news || err != nil || len(w.watcher.WatchList()) != 0 {
		t.Errorf("nothing is followed: %t, %v, %v", news, err, w.watcher.WatchList())
	}
}
