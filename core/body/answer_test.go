package body

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

func TestAnswersAreKeptUpToTheirLimit(t *testing.T) {
	for limit, text := range map[int]string{4: "four", 0: strings.Repeat("x", Max)} {
		a := &Answer{Limit: limit}
		if n, err := a.Write([]byte(text)); err != nil || n != len(text) || a.TooLong || a.Code != http.StatusOK {
			t.Errorf("limit %d: wrote %d, %v, code %d, too long %v", limit, n, err, a.Code, a.TooLong)
		}
		if n, err := a.Write([]byte("x")); err != nil || n != 1 || !a.TooLong || a.Body.Len() != len(text) {
			t.Errorf("limit %d: one byte more: %d, %v, too long %v, %d kept", limit, n, err, a.TooLong, a.Body.Len())
		}
	}
}

func TestOnlyRefusalsAreTakenForStatus(t *testing.T) {
	refusal := apierrors.NewNotFound(schema.GroupResource{Resource: "pods"}, "web").Status()
	raw, err := json.Marshal(refusal)
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		code int
		body string
		want bool
	}{
		{http.StatusNotFound, string(raw), true},
		{http.StatusForbidden, string(raw), false}, // the two disagree
		{http.StatusNotFound, `{"kind":"Pod"}`, false},
		{http.StatusNotFound, "<html>", false},
	} {
		a := &Answer{}
		a.WriteHeader(http.StatusContinue)
		a.WriteHeader(tt.code)
		_, _ = a.Write([]byte(tt.body))
		if got := a.Status(); (got != nil) != tt.want || a.Code != tt.code {
			t.Errorf("%d %s: got %v, code %d", tt.code, tt.body, got, a.Code)
		}
	}
}
