package limit

import (
	"math"
	"testing"
)

// TestSharesAreNeitherNothingNorMoreThanAll has proxies be counted wrongly.
func TestSharesAreNeitherNothingNorMoreThanAll(t *testing.T) {
	whole := Limit{Scope: ClusterShare, Tokens: &Tokens{Rate: 100, Burst: 200}, InFlight: &InFlight{Max: 50}}
	for _, n := range []int{math.MinInt, -1, 0, 1, 4, MaxProxies, MaxProxies + 1, math.MaxInt32, math.MaxInt} {
		share, of := whole.Of(n), float64(min(max(n, 1), MaxProxies))
		if share.Tokens.Rate != 100/of || share.Tokens.Burst != 200/of || share.InFlight.Max < 1 || share.InFlight.Max > 50 {
			t.Errorf("of %d: %+v, %+v", n, share.Tokens, share.InFlight)
		}
	}
	whole.Scope = ""
	if same := whole.Of(4); same.Tokens.Rate != 100 {
		t.Errorf("a limit that is not shared became %+v", same.Tokens)
	}
}
