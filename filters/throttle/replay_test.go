package throttle

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/portico-proxy/portico/core/limit"
)

func TestReplayTellsWhatWouldHaveBecomeOfRequests(t *testing.T) {
	warn := with(tokens(1, 1), func(l *limit.Limit) { l.OnExceed = limit.Warn })
	for name, tt := range map[string]struct {
		limit limit.Limit
		want  []string
	}{
		"reject": {tokens(1, 1), []string{admitted, rejected, rejected, admitted}},
		"delay":  {with(tokens(1, 1), delaying(time.Second)), []string{admitted, delayed, rejected, delayed}},
		"warn":   {warn, []string{admitted, warned, warned, admitted}},
		"audit":  {with(tokens(1, 1), func(l *limit.Limit) { l.Audit = true }), []string{admitted, audited, audited, admitted}},
	} {
		t.Run(name, func(t *testing.T) {
			now := time.Unix(0, 0)
			l := NewLimiter(Options{Now: func() time.Time { return now }})
			var got []string
			for _, after := range []time.Duration{0, 0, 0, time.Second} {
				now = now.Add(after)
				outcome, by := l.Replay([]limit.Limit{tt.limit})
				if (by == nil) != (outcome == admitted) {
					t.Errorf("%s because of %v", outcome, by)
				}
				got = append(got, outcome)
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}
