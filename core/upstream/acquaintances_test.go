package upstream

import (
	"fmt"
	"net/http"
	"testing"
)

// TestStrangersDoNotCloseOthersConnections has the API server close connections of
// HTTP/2 to whom it does not let in, as it does.
func TestStrangersDoNotCloseOthersConnections(t *testing.T) {
	const good = "Bearer good"
	srv := origin(t, func(w http.ResponseWriter, r *http.Request) {
		credential := r.Header.Get("Authorization")
		if r.ProtoMajor == 2 && credential != good {
			w.Header().Set("Connection", "close")
		}
		w.Header().Set("From", r.RemoteAddr)
		if credential != good && credential != "" {
			w.WriteHeader(http.StatusUnauthorized)
		}
	})
	u, proxy := before(t, configOf(srv))
	ask := func(credential string) (from string) {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, proxy.URL+"/version", nil)
		if err != nil {
			t.Fatal(err)
		}
		if credential != "" {
			r.Header.Set("Authorization", credential)
		}
		res, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		return res.Header.Get("From")
	}
	ask(good) // and is known from then on
	mine := ask(good)
	for i := range 5 {
		ask("")
		ask(fmt.Sprint("Bearer bad-", i))
		if err := u.Ready(&http.Request{}); err != nil {
			t.Error(err)
		}
		if got := ask(good); got != mine {
			t.Errorf("after %d strangers: from %s, want from %s as before", 2*(i+1), got, mine)
		}
	}
}

func TestAcquaintancesAreForgottenInTime(t *testing.T) {
	a := newAcquaintances()
	a.learn(1, http.StatusForbidden)
	for id := range uint64(3 * mostAcquaintances) {
		a.learn(id+2, http.StatusOK)
		if !a.know(1) {
			t.Fatalf("who is in use is forgotten after %d others", id)
		}
	}
	if n := len(a.young) + len(a.others); n > 2*mostAcquaintances {
		t.Errorf("%d are known", n)
	}
	if a.know(2) {
		t.Error("who was not heard of for long is still known")
	}
	if a.learn(1, http.StatusUnauthorized); a.know(1) {
		t.Error("who is no longer let in is still known")
	}
	if a.learn(0, http.StatusOK); a.know(0) {
		t.Error("who says not who he is is known")
	}
}
