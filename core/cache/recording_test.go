package cache

import (
	"errors"
	"testing"

	"github.com/portico-proxy/portico/core/cache/internal/stream"
)

func TestRecordingsTakeTheRoomTheyNeed(t *testing.T) {
	room := &stream.Budget{Limit: 3*maxRecorded - 1}
	part := make([]byte, 32<<10)
	write := func(r *recorded, size int) error {
		for w := (&recording{r, room}); len(r.body) < size; {
			if _, err := w.Write(part); err != nil {
				return err
			}
		}
		return nil
	}
	large := &recorded{}
	if err := write(large, maxRecorded); err != nil || large.taken < maxRecorded || large.taken > 2*maxRecorded {
		t.Errorf("%d bytes have taken %d: %v", len(large.body), large.taken, err)
	}
	if err := write(large, maxRecorded+1); !errors.Is(err, stream.ErrOverBudget) {
		t.Errorf("a larger one: %v", err)
	}
	second := &recorded{}
	if err := write(second, maxRecorded); err != nil {
		t.Errorf("a second: %v", err)
	}
	third := &recorded{}
	if err := write(third, maxRecorded); !errors.Is(err, stream.ErrOverBudget) {
		t.Errorf("a third: %v", err)
	}
	for _, r := range []*recorded{large, second, third} {
		room.Add(-r.taken)
	}
	if used := room.Used(); used != 0 {
		t.Errorf("%d bytes are taken by nobody", used)
	}
}
