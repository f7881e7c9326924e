package config

import (
	"context"
	"os"
	"testing"
	"time"

	"github.com/go-logr/logr"
	"github.com/google/go-cmp/cmp"
)

func TestADirectoryThatTakesThePlaceOfAnotherIsFollowed(t *testing.T) {
	l, other := loader(t, map[string]string{"a.yaml": policy("a")}), loader(t, map[string]string{"b.yaml": policy("b")})
	applied, look, ended := make(chan *Snapshot, 100), make(chan time.Time), make(chan error)
	f, err := newFollower(l, func(s *Snapshot) error { applied <- s; return nil })
	if err != nil {
		t.Fatal(err)
	}
	defer f.close()
	ctx, cancel := context.WithCancel(t.Context())
	go func() { ended <- f.run(ctx, logr.Discard(), look) }()
	expect := func(want ...string) {
		t.Helper()
		if diff := cmp.Diff(want, names(<-applied)); diff != "" {
			t.Error(diff)
		}
	}
	expect("a")
	if err := os.Rename(l.Dir, l.Dir+".old"); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(other.Dir, l.Dir); err != nil {
		t.Fatal(err)
	}
	look <- time.Time{}
	expect("b")
	write(t, l, "c.yaml", policy("c"))
	expect("b", "c")
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}
