package noderestriction

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/endpoints/request"

	"github.com/portico-proxy/portico/core/body"
	"github.com/portico-proxy/portico/core/limit"
	"github.com/portico-proxy/portico/core/pipeline"
	"github.com/portico-proxy/portico/crds/proxy/v1alpha1"
)

// TestWhatIsMadeOfAWriteIsJudgedToo has a filter in between change what a node writes.
func TestWhatIsMadeOfAWriteIsJudgedToo(t *testing.T) {
	const (
		mine   = `{"kind":"Event","apiVersion":"v1","involvedObject":{"kind":"Pod","namespace":"shop","name":"web"}}`
		theirs = `{"kind":"Event","apiVersion":"v1","involvedObject":{"kind":"Node","name":"n2"}}`
		node   = `{"kind":"Event","apiVersion":"v1","involvedObject":{"kind":"Node","name":"n1"}}`
		pinned = `{"kind":"DeleteOptions","apiVersion":"v1","preconditions":{"uid":"1"}}`
		merge  = "application/merge-patch+json"
	)
	event := request.RequestInfo{Verb: "create", Namespace: "shop", Resource: "events"}
	remove := request.RequestInfo{Verb: "delete", Namespace: "shop", Resource: "pods", Name: "web"}
	status := request.RequestInfo{Verb: "patch", Namespace: "shop", Resource: "pods", Subresource: "status", Name: "web"}
	listed := request.RequestInfo{Verb: "create", Namespace: "shop", Resource: "configmaps"}
	for name, tt := range map[string]struct {
		info              request.RequestInfo
		media, from, to   string
		code              int32
		arrives, arrives2 string // what has to be in what is sent on
		limits            int
	}{
		"unchanged":        {event, "", mine, mine, 200, `"web"`, "", 2},
		"not-looked-at":    {event, "", mine, "", 200, `"web"`, "", 2},
		"of-another":       {event, "", mine, theirs, 403, "", "", 0},
		"of-another-first": {event, "", theirs, mine, 403, "", "", 0},
		"of-the-node":      {event, "", mine, node, 200, `"n1"`, "", 3},
		"no-object":        {event, "", mine, "x", 400, "", "", 0},
		"pinned":           {remove, "", "", pinned, 200, `"uid":"1"`, "", 0},
		"unpinned":         {remove, "", "", `{"kind":"DeleteOptions","apiVersion":"v1","gracePeriodSeconds":0}`, 200, `"uid":"1"`, `"gracePeriodSeconds":0`, 0},
		"pinned-to-other":  {remove, "", "", `{"kind":"DeleteOptions","apiVersion":"v1","preconditions":{"uid":"2"}}`, 409, "", "", 0},
		"status":           {status, merge, `{"status":{"phase":"Failed"}}`, `{"status":{"phase":"Running"}}`, 200, `"Running"`, `"uid":"1"`, 0},
		"more-than-status": {status, merge, `{"status":{"phase":"Failed"}}`, `{"status":{},"metadata":{"labels":{"a":"b"}}}`, 403, "", "", 0},
		"other-patch":      {status, merge, `{"status":{"phase":"Failed"}}`, "application/apply-patch+yaml|{}", 403, "", "", 0},
		"listed":           {listed, "", `{"kind":"ConfigMap"}`, `{"kind":"ConfigMap","data":{}}`, 200, `"data"`, "", 0},
	} {
		t.Run(name, func(t *testing.T) {
			f := compiled(t, knowing(t, nil), policy("p", func(s *v1alpha1.NodePolicySpec) {
				s.Writes = []v1alpha1.NodeWrite{{Resource: "configmaps", Verbs: []string{"create"}}}
				s.Events = &v1alpha1.EventBudget{PerNode: &v1alpha1.EventRate{PerMinute: 1, Burst: 1}, PerObject: &v1alpha1.EventRate{PerMinute: 1, Burst: 1}}
			}))
			f.Twice = true
			got, limits := "", 0
			last := pipeline.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) error {
				raw, err := io.ReadAll(r.Body)
				got, limits = string(raw), len(limit.From(r.Context()))
				return err
			})
			between := pipeline.HandlerFunc(func(w http.ResponseWriter, r *http.Request) error {
				if media, to, ok := strings.Cut(tt.to, "|"); ok {
					r.Header.Set("Content-Type", media)
					r = body.With(r, []byte(to))
				} else if tt.to != "" {
					r = body.With(r, []byte(tt.to))
				}
				return f.Again().ServeHTTP(w, r, last)
			})
			r := httptest.NewRequest(http.MethodPost, "/", strings.NewReader(tt.from))
			r.Header.Set("Content-Type", tt.media)
			info := tt.info
			info.IsResourceRequest = true
			caller := &user.DefaultInfo{Name: "system:node:n1", Groups: []string{user.NodesGroup}}
			r = r.WithContext(request.WithUser(request.WithRequestInfo(t.Context(), &info), caller))
			if code := codeOf(f.ServeHTTP(httptest.NewRecorder(), r, between)); code != tt.code {
				t.Errorf("got %d, want %d", code, tt.code)
			}
			if !strings.Contains(got, tt.arrives) || !strings.Contains(got, tt.arrives2) || limits != tt.limits || tt.code != 200 && got != "" {
				t.Errorf("%d limits, and sent on was %s", limits, got)
			}
		})
	}
}
