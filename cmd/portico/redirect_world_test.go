package main

import (
	"context"
	"errors"
	"net"
	"net/http"
	"strings"
	"testing"

	"github.com/go-logr/logr/funcr"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	"k8s.io/klog/v2"
)

// aClusterWithout says which resources there are, none of them ours.
func aClusterWithout(w http.ResponseWriter, r *http.Request) {
	text := map[string]string{
		"/api":    `{"kind":"APIVersions","versions":["v1"]}`,
		"/apis":   `{"kind":"APIGroupList","apiVersion":"v1","groups":[]}`,
		"/api/v1": `{"kind":"APIResourceList","groupVersion":"v1","resources":[{"name":"services","namespaced":true,"kind":"Service"},{"name":"pods","namespaced":true,"kind":"Pod"},{"name":"nodes","kind":"Node"}]}`,
	}[r.URL.Path]
	w.Header().Set("Content-Type", "application/json")
	if text == "" {
		w.WriteHeader(http.StatusNotFound)
		text = `{"kind":"Status","apiVersion":"v1","status":"Failure","reason":"` + string(metav1.StatusReasonNotFound) + `","code":404}`
	}
	_, _ = w.Write([]byte(text))
}

// An API server that comes later is asked as if it had been there.
func TestAgentsWaitForTheAPIServer(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := l.Addr().String()
	l.Close()
	waits := make(chan string, 10)
	ctx, cancel := context.WithCancel(klog.NewContext(t.Context(), funcr.New(func(_, args string) { waits <- args }, funcr.Options{})))
	defer cancel()
	begin := func(dry bool) chan error {
		o := defaultRedirectOptions()
		o.nodeName, o.dryRun = "n", dry
		w, err := newWatcher(ctx, &rest.Config{Host: "http://" + address}, o, func() {})
		if err != nil {
			t.Fatal(err)
		}
		ended := make(chan error, 1)
		go func() { ended <- w.start(ctx) }()
		return ended
	}
	if err := <-begin(true); err == nil {
		t.Error("a dry run is told nothing")
	}
	ended := begin(false)
	if said := <-waits; !strings.Contains(said, "Waiting for the API server") {
		t.Errorf("logged %q", said)
	}
	if l, err = net.Listen("tcp", address); err != nil {
		t.Fatal(err)
	}
	s := &http.Server{Handler: http.HandlerFunc(aClusterWithout)}
	defer s.Close()
	go func() { _ = s.Serve(l) }()
	if err := <-ended; !errors.Is(err, errNoPolicies) {
		t.Errorf("it ended with %v, want to miss policies", err)
	}
	if said := <-waits; !strings.Contains(said, "The API server answers") {
		t.Errorf("logged %q", said)
	}
	s.Close()
	ended = begin(false)
	<-waits
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("it ended with %v", err)
	}
}
