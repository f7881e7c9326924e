package talkers

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

var looper = Who{User: "looper", Resource: "pods"}

func TestTheLastMinuteIsObserved(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := New()
		for range 30 { // five minutes
			a.Add(looper, "looper/v1", Counts{Requests: 1, Lists: 2, ListBytes: 10})
			<-time.After(10 * time.Second)
		}
		if got := a.Observed("looper", "", "pods"); got.Requests != 6 || got.Lists != 12 || got.ListBytes != 60 {
			t.Errorf("got %+v", got)
		}
		<-time.After(time.Hour)
		if got := a.Observed("looper", "", "pods"); got != (Counts{}) {
			t.Errorf("an hour later: %+v", got)
		}
		if got := a.Talkers()[0]; got.Total.Requests != 30 || got.Minute.Requests != 0 || got.Agent != "looper/v1" {
			t.Errorf("got %+v", got)
		}
	})
}

func TestObservedStaysForTenSeconds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := New()
		<-time.After(time.Minute)
		for range 9 {
			a.Add(looper, "", Counts{Requests: 1})
			if got := a.Observed("looper", "", "pods"); got.Requests != 0 {
				t.Errorf("what is observed changes with each request: %+v", got)
			}
			<-time.After(time.Second)
		}
		<-time.After(time.Second)
		if got := a.Observed("looper", "", "pods"); got.Requests != 9 {
			t.Errorf("got %+v", got)
		}
	})
}

func TestTheDearestComeFirst(t *testing.T) {
	a := New()
	a.Add(Who{User: "busy", Resource: "pods"}, "", Counts{Requests: 9})
	a.Add(Who{User: "large", Resource: "pods"}, "", Counts{Requests: 1, ListBytes: 50 * BytesPerSeat})
	a.Add(Who{Agent: "calm", Resource: "pods"}, "calm", Counts{Requests: 1})
	var users []string
	for _, talker := range a.Talkers() {
		users = append(users, talker.User)
	}
	if got := strings.Join(users, " "); got != "large busy " {
		t.Errorf("the order is %q", got)
	}
}

func TestAccountIsBounded(t *testing.T) {
	a := New()
	for n := range 2 * maxRows {
		a.Add(Who{Agent: fmt.Sprint(n) + strings.Repeat("x", 1<<10), Resource: "pods"}, strings.Repeat("y", 1<<10), Counts{Requests: 1})
		a.Add(looper, "", Counts{Requests: 1})
		a.Wrote("", "pods", "shop", fmt.Sprint(n), 1)
		a.Measured("", "pods", fmt.Sprint(n), Size{})
	}
	if len(a.rows) != maxRows || a.order.Len() != maxRows || a.rows[looper].total.Requests != 2*maxRows {
		t.Errorf("%d rows, %d in order", len(a.rows), a.order.Len())
	}
	for who, r := range a.rows {
		if len(who.Agent) > maxAgent || len(r.agent) > maxAgent {
			t.Fatal("user agents are kept whole")
		}
	}
	if n := len(a.versions.young) + len(a.versions.old); n > 2*maxRemembered {
		t.Errorf("%d versions are remembered", n)
	}
	if n := len(a.sizes.young) + len(a.sizes.old); n > 2*maxRemembered {
		t.Errorf("%d sizes are remembered", n)
	}
}

// TestLongNamesAreNotKept has somebody ask for what nobody has.
func TestLongNamesAreNotKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := New()
		long := strings.Repeat("x", 1<<20)
		for range 2 {
			a.Add(Who{User: long, Group: long, Resource: long, Agent: long}, long, Counts{Requests: 1})
			a.Wrote(long, long, long, long, 1)
			a.Measured(long, long, long, Size{Objects: 1})
		}
		a.Add(Who{User: long, Group: long, Resource: long}, long, Counts{Requests: 1})
		for who, r := range a.rows {
			if n := len(who.User + who.Group + who.Resource + who.Agent + r.agent); n > maxUser+2*maxName+2*maxAgent {
				t.Errorf("a row keeps %d bytes", n)
			}
		}
		for o := range a.versions.young {
			if n := len(o.group + o.resource + o.namespace + o.name); n > 4*maxName {
				t.Errorf("a version keeps %d bytes", n)
			}
		}
		for c := range a.sizes.young {
			if n := len(c.group + c.resource + c.namespace); n > 3*maxName {
				t.Errorf("a size keeps %d bytes", n)
			}
		}
		<-time.After(slot)
		if got := a.Observed(long, long, long); got.Requests != 1 {
			t.Errorf("got %+v", got)
		}
		if size, ok := a.Size(long, long, long); !ok || size.Objects != 1 {
			t.Errorf("got %+v, %t", size, ok)
		}
	})
}

func TestWritesThatChangeNothing(t *testing.T) {
	a := New()
	for i, tt := range []struct {
		name    string
		version uint64
		noop    bool
	}{{"web", 7, false}, {"web", 7, true}, {"db", 7, false}, {"web", 8, false}, {"web", 8, true}, {"db", 0, false}, {"db", 0, false}} {
		if got := a.Wrote("", "pods", "shop", tt.name, tt.version); got != tt.noop {
			t.Errorf("write %d of %s: noop is %t", i, tt.name, got)
		}
	}
}

func TestHammerOfTheAccount(t *testing.T) {
	a := New()
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for n := range 200 {
				a.Add(Who{User: fmt.Sprint(n % 5), Resource: "pods"}, fmt.Sprint(i), Counts{Requests: 1})
				a.Observed(fmt.Sprint(n%5), "", "pods")
				a.Talkers()
			}
		})
	}
	wg.Wait()
	var sum int64
	for _, talker := range a.Talkers() {
		sum += talker.Total.Requests
	}
	if sum != 1600 {
		t.Errorf("%d requests were counted, want 1600", sum)
	}
}
