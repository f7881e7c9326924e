package stream

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// TestStormTakesFewFlights lets callers come faster than answers do.
func TestStormTakesFewFlights(t *testing.T) {
	for name, tt := range map[string]struct{ callers, flights int }{"few": {crowd - 1, 3}, "storm": {crowd, 2}} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var f Flights[int]
				flights := 0
				fetch := func() (int, error) {
					flights++
					<-time.After(time.Millisecond)
					return flights, nil
				}
				var all sync.WaitGroup
				ask := func() {
					all.Go(func() {
						if _, err := f.Do(t.Context(), fetch); err != nil {
							t.Error(err)
						}
					})
				}
				ask()
				synctest.Wait() // the first is on its way
				for range tt.callers {
					ask()
				}
				<-time.After(time.Millisecond + linger/2)
				ask() // while others linger, if they do
				all.Wait()
				if flights != tt.flights {
					t.Errorf("%d flights, want %d", flights, tt.flights)
				}
			})
		})
	}
}

// TestWhatFlightsBringIsFreedOnce has one who boarded lose patience, and another take
// long over what came.
func TestWhatFlightsBringIsFreedOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var freed []int
		n := 0
		var idle atomic.Int32
		f := Flights[int]{Free: func(v int) { freed = append(freed, v) }, Idle: func() { idle.Add(1) }}
		fetch := func() (int, error) {
			n++
			v := n
			<-time.After(time.Second)
			return v, nil
		}
		impatient, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		defer cancel()
		_, done, err := f.Hold(impatient, fetch)
		if done(); err == nil {
			t.Error("waited for a flight that took longer")
		}
		if idle.Load() > 0 {
			t.Error("idle while the flight has yet to land")
		}
		<-time.After(time.Second)
		synctest.Wait()
		if n := idle.Load(); n != 1 {
			t.Errorf("idle %d times when it had landed with nobody waiting", n)
		}
		got, done, err := f.Hold(t.Context(), fetch)
		if err != nil || got != 2 || len(freed) != 1 {
			t.Errorf("got %d of flights of which %v are freed: %v", got, freed, err)
		}
		if done(); len(freed) != 2 {
			t.Errorf("freed %v", freed)
		}
		f.End()
	})
}
