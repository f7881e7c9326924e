package view_test

import (
	"bytes"
	"context"
	"errors"
	"testing"

	"github.com/portico-proxy/portico/core/view"
)

// eye sees what it is told to.
type eye struct {
	name string
	see  func([]byte) ([]byte, error)
}

func (e eye) See(_ context.Context, o view.Object) ([]byte, error) { return e.see(o.JSON) }
func (e eye) Key() string                                          { return e.name }
func (eye) Changed() <-chan struct{}                               { return nil }

func with(ctx context.Context, views []view.View) context.Context {
	if len(views) == 0 {
		return ctx
	}
	return with(view.With(ctx, views[0]), views[1:])
}

func TestEachViewSeesWhatTheOneBeforeItLeft(t *testing.T) {
	upper := eye{"upper", func(b []byte) ([]byte, error) { return bytes.ToUpper(b), nil }}
	onlyUpper := eye{"only-upper", func(b []byte) ([]byte, error) {
		if bytes.Equal(b, bytes.ToUpper(b)) {
			return b, nil
		}
		return nil, nil
	}}
	for want, views := range map[string][]view.View{"A": {upper, onlyUpper}, "": {onlyUpper, upper}, "a": nil} {
		ctx := with(t.Context(), views)
		got, err := view.From(ctx).See(ctx, view.Object{JSON: []byte("a")})
		if err != nil || string(got) != want {
			t.Errorf("%v: got %q, %v, want %q", views, got, err, want)
		}
	}
}

func TestViewThatCannotTellHidesNothing(t *testing.T) {
	broken := errors.New("broken")
	ctx := view.With(t.Context(), eye{"broken", func([]byte) ([]byte, error) { return nil, broken }})
	if _, err := view.From(ctx).See(ctx, view.Object{}); !errors.Is(err, broken) {
		t.Errorf("got %v", err)
	}
}

func TestRequestsThatBranchDoNotShareViews(t *testing.T) {
	first := view.With(t.Context(), eye{name: "a"})
	left, right := view.With(first, eye{name: "l"}), view.With(first, eye{name: "r"})
	if view.From(left).Key() != "a\x00l" || view.From(right).Key() != "a\x00r" || view.From(first).Key() != "a" {
		t.Errorf("got %q, %q, %q", view.From(left).Key(), view.From(right).Key(), view.From(first).Key())
	}
}

func TestWhatIsInDoubtIsNotRemembered(t *testing.T) {
	memo, looked, fails := &view.Memo{}, 0, true
	glass := doubtful(func(ctx context.Context, o view.Object) ([]byte, error) {
		looked++
		if fails {
			view.Doubt(ctx)
			return o.JSON, nil
		}
		return []byte("masked"), nil
	})
	views := memo.Of(view.Views{glass}, 1)
	see := func(want string, times int) {
		t.Helper()
		got, err := views.See(t.Context(), view.Object{UID: "u", ResourceVersion: 1, JSON: []byte("whole")})
		if err != nil || string(got) != want || looked != times {
			t.Errorf("got %s, %v, looked at %d times", got, err, looked)
		}
	}
	see("whole", 1)
	fails = false
	see("masked", 2)
	see("masked", 2)
}

// doubtful is a view that is told of contexts.
type doubtful func(context.Context, view.Object) ([]byte, error)

func (d doubtful) See(ctx context.Context, o view.Object) ([]byte, error) { return d(ctx, o) }
func (doubtful) Key() string                                              { return "doubtful" }
func (doubtful) Changed() <-chan struct{}                                 { return nil }
