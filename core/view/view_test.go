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
