package fetch

import (
	"maps"
	"os"
	"path/filepath"
	"slices"

	"github.com/fsnotify/fsnotify"
	"github.com/go-logr/logr"

	"github.com/portico-proxy/portico/core/directory"
)

// eyes notice changes of files.
type eyes struct {
	watcher *directory.Watcher // nil if the system has none left
	events  <-chan fsnotify.Event
	errors  <-chan error
	log     logr.Logger
	// seen is what files were when they were looked at last. Only who has no
	// watcher looks at them.
	seen map[string]os.FileInfo
}

// open opens eyes, with or without a watcher: nothing that is fetched needs one.
func open(log logr.Logger) *eyes {
	w, err := directory.New()
	if err != nil {
		log.Error(err, "Changes of files are noticed late: the system watches no more for us (fs.inotify.max_user_instances)", "every", directory.LookEvery)
		return &eyes{log: log}
	}
	return &eyes{watcher: w, events: w.Events(), errors: w.Errors(), log: log}
}

func (e *eyes) close() {
	if e.watcher != nil {
		e.watcher.Close()
	}
}

// follow notices changes of these files from now on, and reports whether some may
// have changed unnoticed.
func (e *eyes) follow(files map[string]bool) bool {
	if e.watcher == nil {
		return e.look(files)
	}
	return e.watch(files)
}

// look compares files with what they were.
func (e *eyes) look(files map[string]bool) (news bool) {
	now := map[string]os.FileInfo{}
	for file := range files {
		info, err := os.Stat(file)
		if err != nil {
			info = nil
		}
		before, known := e.seen[file]
		now[file], news = info, news || !known || !isSame(before, info)
	}
	e.seen = now
	return news
}

func isSame(a, b os.FileInfo) bool {
	if a == nil || b == nil {
		return a == b
	}
	return os.SameFile(a, b) && a.Size() == b.Size() && a.ModTime().Equal(b.ModTime())
}

// watch follows the directories of all files: files are replaced, and may not be
// there yet.
func (e *eyes) watch(files map[string]bool) (news bool) {
	dirs := map[string]bool{}
	for file := range files {
		dirs[filepath.Dir(file)] = true
	}
	news, err := e.watcher.Follow(slices.Collect(maps.Keys(dirs))...)
	if err != nil {
		e.log.V(1).Info("files are not watched for now", "reason", err.Error())
	}
	return news
}
