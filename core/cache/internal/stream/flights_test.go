package stream

import (
	"sync"
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
