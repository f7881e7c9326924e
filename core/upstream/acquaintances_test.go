package upstream

import (
	"fmt"
	"net/http"
	"strings"
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
		switch {
		case r.URL.Query().Has("timeout"):
			w.WriteHeader(http.StatusBadRequest) // whoever asks
		case credential != good && strings.HasPrefix(credential, "Bearer b"):
			w.WriteHeader(http.StatusUnauthorized)
		}
	})
	u, proxy := before(t, configOf(srv))
	send := func(method, path, credential string) (from string) {
		r, err := http.NewRequestWithContext(t.Context(), method, proxy.URL+path, nil)
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
	ask := func(credential string) string { return send(http.MethodGet, "/version", credential) }
	ask(good) // and is known from then on
	mine := ask(good)
	for i := range 5 {
		ask("")
		bad := fmt.Sprint("Bearer bad-", i)
		ask(bad)
		send(http.MethodGet, "/version?timeout=abc", bad)
		send(http.MethodOptions, "/version", bad)
		ask(bad)
		for range 2 {
			ask("Basic YTpi") // which the API server takes for nobody's, and answers
			ask("Bearer  two-spaces")
		}
		if err := u.Ready(&http.Request{}); err != nil {
			t.Error(err)
		}
		if got := ask(good); got != mine {
			t.Errorf("after strangers came %d times: from %s, want from %s as before", i+1, got, mine)
		}
	}
}

func TestAcquaintancesAreForgottenInTime(t *testing.T) {
	a := newAcquaintances()
	r := &http.Request{Method: http.MethodGet}
	a.learn(r, 1, http.StatusForbidden)
	for id := range uint64(3 * mostAcquaintances) {
		a.learn(r, id+2, http.StatusOK)
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
	if a.learn(r, 1, http.StatusUnauthorized); a.know(1) {
		t.Error("who is no longer let in is still known")
	}
	if a.learn(r, 0, http.StatusOK); a.know(0) {
		t.Error("who says not who he is is known")
	}
}
