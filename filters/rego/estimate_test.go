package rego

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/portico-proxy/portico/core/talkers"
)

// TestEstimateIsThatOfPriorityAndFairness has 3000 pods of 1000 bytes.
func TestEstimateIsThatOfPriorityAndFairness(t *testing.T) {
	account := talkers.New()
	account.Measured("", "pods", "", talkers.Size{Objects: 3000, Bytes: 3_000_000})
	for path, want := range map[string]estimate{
		"/api/v1/pods":                                                         {3000, 3_000_000, 10},
		"/api/v1/pods?resourceVersion=0":                                       {3000, 3_000_000, 10},
		"/api/v1/pods?limit=150":                                               {150, 150_000, 2},
		"/api/v1/pods?limit=500&resourceVersion=7":                             {500, 500_000, 5},
		"/api/v1/pods?continue=x&limit=1500":                                   {1500, 1_500_000, 15},
		"/api/v1/pods?continue=x":                                              {3000, 3_000_000, 30},
		"/api/v1/pods?continue=x&limit=5&labelSelector=a":                      {1500, 1_500_000, 15},
		"/api/v1/pods?fieldSelector=metadata.name%3Dweb":                       {0, 0, 1},
		"/api/v1/pods?watch=1":                                                 {3000, 3_000_000, 10},
		"/api/v1/pods?watch=1&resourceVersion=7":                               {0, 0, 1},
		"/api/v1/namespaces/shop/pods":                                         {0, 0, 1},
		"/api/v1/namespaces/shop/pods/web":                                     {0, 0, 1},
		"/api/v1/nodes":                                                        {0, 0, 1},
		"/api/v1/pods?resourceVersion=7&watch=1&limit=nope":                    {0, 0, 1},
		"/api/v1/pods?resourceVersion=7&resourceVersionMatch=Exact&limit=5000": {3000, 3_000_000, 30},
	} {
		facts := sent(t, "GET", path, looper)
		facts.Account = account
		if got := facts.estimate(); got != want {
			t.Errorf("%s: got %+v, want %+v", path, got, want)
		}
	}
}

// TestAnswersAreRememberedByWhatTheyAreTo has a collection be listed between what an
// answer is remembered by and what it is an answer to.
func TestAnswersAreRememberedByWhatTheyAreTo(t *testing.T) {
	account := talkers.New()
	account.Measured("", "pods", "", talkers.Size{Objects: 3000, Bytes: 3_000_000})
	plan := planInput([]string{"estimate"})
	asked := func() *Facts {
		facts := sent(t, "GET", "/api/v1/pods", looper)
		facts.Account = account
		return facts
	}
	want := plan.value(asked())
	facts := asked()
	plan.key(nil, facts)
	account.Measured("", "pods", "", talkers.Size{Objects: 5, Bytes: 5000})
	if got := plan.value(facts); got.Compare(want) != 0 {
		t.Errorf("got %v, want %v", got, want)
	}
	if plan.value(asked()).Compare(want) == 0 {
		t.Error("the next request is not told of what was listed")
	}
}

// TestPoliciesSeeWhatWasObserved has a policy decide by the last minute.
func TestPoliciesSeeWhatWasObserved(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := compiled(t, "package a\n\nwarn contains \"loops\" if input.observed.quorumLists > 5\n")
		account := talkers.New()
		ask := func() []string {
			facts := sent(t, "GET", "/api/v1/pods", looper)
			facts.Account = account
			a, err := p.Decide(t.Context(), facts)
			if err != nil {
				t.Fatal(err)
			}
			return a.Warn
		}
		for range 10 {
			account.Add(talkers.Who{User: looper.Name, Resource: "pods"}, "looper/v1", talkers.Counts{Requests: 1, QuorumLists: 1})
		}
		var got [][]string
		for _, after := range []time.Duration{0, 10 * time.Second, 50 * time.Second, 10 * time.Second} {
			<-time.After(after)
			got = append(got, ask())
		}
		if diff := cmp.Diff([][]string{nil, {"loops"}, {"loops"}, nil}, got); diff != "" {
			t.Error(diff)
		}
	})
}
