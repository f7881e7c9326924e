package stream

import (
	"context"
	"fmt"
	"net/http"
	"strconv"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"

	"github.com/portico-proxy/portico/core/cache/wire"
)

// item is an object as the reflector sees it: the few words of metadata that it
// reads, and the bytes that it carries from here to there.
type item struct {
	metav1.TypeMeta
	metav1.ObjectMeta
	object *wire.Object
}

func newItem(o *wire.Object) *item {
	i := &item{object: o}
	i.Namespace, i.Name = o.Namespace(), o.Name()
	i.ResourceVersion = strconv.FormatUint(o.ResourceVersion, 10)
	return i
}

// DeepCopyObject returns i: nobody changes an item.
func (i *item) DeepCopyObject() runtime.Object { return i }

// items is a list as the reflector sees it.
type items struct {
	metav1.TypeMeta
	metav1.ListMeta
	Items []runtime.Object
}

// DeepCopyObject returns l: nobody changes a list.
func (l *items) DeepCopyObject() runtime.Object { return l }

// bookmarkItem notes what a bookmark looks like and passes its meaning on.
func (s *Stream) bookmarkItem(raw []byte) (*item, error) {
	rv, err := wire.BookmarkResourceVersion(s.Format, raw)
	if err != nil {
		return nil, err
	}
	i := &item{}
	i.ResourceVersion = strconv.FormatUint(rv, 10)
	ends := wire.EndsInitialEvents(raw)
	if ends {
		i.Annotations = map[string]string{metav1.InitialEventsAnnotationKey: "true"}
	}
	if known := s.bookmark.Load(); known == nil || (ends && !known.HasInitial()) {
		mark, err := wire.NewBookmark(s.Format, raw)
		if err != nil {
			return nil, err
		}
		s.bookmark.Store(mark)
	}
	return i, nil
}

// received counts what arrives before there is a state to count it in.
func (s *Stream) received(o *wire.Object) {
	if s.state.Load() != nil {
		return
	}
	total := s.loading.Add(int64(o.Size()))
	if s.budget.Limit > 0 && s.budget.Used()+total > s.budget.Limit {
		s.Fail(ErrOverBudget)
	}
}

// notBefore keeps a relist or a rewatch from going back behind what a catch-up
// watch has applied meanwhile: the reflector does not know of it.
func (s *Stream) notBefore(resourceVersion string) string {
	st := s.State()
	if st == nil || resourceVersion == "" {
		return resourceVersion
	}
	if rv, err := wire.ParseResourceVersion(resourceVersion); err != nil || rv >= st.Applied {
		return resourceVersion
	}
	return strconv.FormatUint(st.Applied, 10)
}

// applied is how far the collection has come, 0 before it has been loaded.
func (s *Stream) applied() uint64 {
	if st := s.State(); st != nil {
		return st.Applied
	}
	return 0
}

// goesOn is from where to watch again what the reflector knows up to resourceVersion.
func (s *Stream) goesOn(resourceVersion string) string {
	st := s.State()
	if st == nil || resourceVersion == "" {
		return resourceVersion
	}
	if rv, err := wire.ParseResourceVersion(resourceVersion); err != nil || rv > st.Applied {
		return resourceVersion
	}
	return strconv.FormatUint(st.since(), 10)
}

func (s *Stream) list(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
	if o.Continue == "" {
		s.asked, s.packer = s.applied(), wire.Packer{}
		o.ResourceVersion = s.notBefore(o.ResourceVersion)
	}
	if o.ResourceVersion == "0" {
		// Any state would do for a reflector. It would not for us: a collection
		// that begins anew must not lie behind what was read from it before.
		o.ResourceVersion = ""
	}
	var res *http.Response
	err := s.insist(ctx, isPassing, func() (err error) {
		s.counts.Lists.Add(1)
		res, err = s.getPart(ctx, query(o), nil) //nolint:bodyclose // closed below, if there is one
		return err
	})
	if err != nil {
		return nil, s.judge(err)
	}
	defer func() { _ = res.Body.Close() }()
	list := &items{}
	list.ListMeta, err = s.Schema.ReadList(s.Format, res.Body, func(o *wire.Object) error {
		s.received(o)
		list.Items = append(list.Items, newItem(s.packer.Add(o)))
		return s.ctx.Err()
	})
	if err != nil {
		return nil, fmt.Errorf("read list: %w", err)
	}
	if list.Continue == "" {
		s.packer = wire.Packer{} // what it remembers is of no more use
	}
	return list, nil
}

func (s *Stream) watch(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
	since := o.ResourceVersion
	passes := isPassing
	if o.SendInitialEvents == nil { // which a 500 may be about
		passes = func(err error) bool { return isPassing(err) || apierrors.IsInternalError(err) }
	}
	var from *resuming
	err := s.insist(ctx, passes, func() error {
		s.asked = s.applied()
		// It may have moved on meanwhile.
		if o.ResourceVersion = s.notBefore(since); o.SendInitialEvents == nil {
			o.ResourceVersion = s.goesOn(since)
		}
		s.loading.Store(0)
		s.counts.Watches.Add(1)
		failed, begun := s.suspect(), s.now()
		events, err := s.openWatch(ctx, nil, o)
		if err != nil {
			failed()
		}
		from = &resuming{events: events, begun: begun}
		return err
	})
	if err != nil {
		return nil, s.judge(err)
	}
	return watch.NewStreamWatcher(from, apierrors.NewClientErrorReporter(http.StatusInternalServerError, http.MethodGet, "WatchDecoding")), nil
}

// judge ends the stream where upstream says that there is nothing for us here.
func (s *Stream) judge(err error) error {
	switch apierrors.ReasonForError(err) {
	case metav1.StatusReasonUnauthorized, metav1.StatusReasonForbidden, metav1.StatusReasonNotFound,
		metav1.StatusReasonMethodNotAllowed, metav1.StatusReasonNotAcceptable:
		s.Fail(err)
	}
	return err
}

// silence is how long a watch that goes on may say nothing before upstream is asked
// whether it has come as far as the collection.
const silence = 5 * time.Second

// suspect sees to it that a restored etcd is noticed: a watch from a
// resourceVersion that it has yet to reach is silent, as that of a quiet collection
// is. The function returned says that there is no watch.
func (s *Stream) suspect() (failed func()) {
	ctx, cancel := context.WithCancel(s.ctx)
	if s.State() == nil {
		return cancel
	}
	heard := s.heard.Load()
	s.chase.wg.Go(func() {
		defer cancel()
		if rest(ctx, silence) && s.heard.Load() == heard {
			_, _ = s.Current(s.ctx) // it judges what it learns
		}
	})
	return cancel
}
