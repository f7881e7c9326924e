package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/go-logr/logr"
	"github.com/spf13/cobra"
	authenticationv1 "k8s.io/api/authentication/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/sets"
	auditv1 "k8s.io/apiserver/pkg/apis/audit/v1"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/endpoints/request"

	"github.com/portico-proxy/portico/core/config"
	"github.com/portico-proxy/portico/core/limit"
	"github.com/portico-proxy/portico/core/pipeline"
	"github.com/portico-proxy/portico/core/view"
	"github.com/portico-proxy/portico/crds/proxy/v1alpha1"
	"github.com/portico-proxy/portico/filters/rego"
	"github.com/portico-proxy/portico/filters/throttle"
)

func newPolicyReplayCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "replay policy.yaml audit.log",
		Short: "Show what policies would have done to the requests of an audit log",
		Long: `Show what the RegoPolicies and FilterBindings of a file would have done to the
requests of an audit log of kube-apiserver (JSON), had they been in force.

An audit log has no sizes, and tells of requests one by one: numbers in flight
and costs of answers are not counted, and input.observed and input.estimate are
those of a proxy that has just begun. One proxy is taken to have had all requests.
Objects are not in it: of selectors it tells whose requests they would have
narrowed, and not what would have been left.`,
		Args: cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			p, err := newReplay(args[0])
			if err != nil {
				return err
			}
			log, err := os.Open(args[1])
			if err != nil {
				return fmt.Errorf("read audit log: %w", err)
			}
			defer log.Close()
			if err := p.read(cmd.Context(), log); err != nil {
				return fmt.Errorf("read audit log %s: %w", args[1], err)
			}
			return p.print(cmd.OutOrStdout())
		},
	}
}

// outcomeFailed is of requests on which a policy failed.
const outcomeFailed = "failed"

var errFailed = errors.New("policies fail on requests: the proxy would do with those what failurePolicy says")

// A fate is what would have become of a request, and why.
type fate struct{ outcome, because, user string }

// replay has requests of the past meet policies of today.
type replay struct {
	filter   *rego.Filter
	limiter  *throttle.Limiter
	now      time.Time
	requests int
	failed   string // what was wrong with what a policy said of the request
	fates    map[fate]int
}

func newReplay(file string) (*replay, error) {
	loader := config.Loader{Scheme: runtime.NewScheme()}
	if err := v1alpha1.AddToScheme(loader.Scheme); err != nil {
		return nil, fmt.Errorf("register policies: %w", err)
	}
	objects, err := loader.LoadFile(file)
	if err != nil {
		return nil, err
	}
	for _, o := range objects {
		if b, ok := o.(*v1alpha1.FilterBinding); ok {
			b.Spec.Mode = v1alpha1.ModeEnforce // that is what one wants to know
		}
	}
	p := &replay{fates: map[fate]int{}}
	var found config.Findings
	failed := func(policy string, err error) { p.failed = fmt.Sprintf("policy %s: %v", policy, err) }
	p.filter, found = rego.NewLibrary(rego.Options{Failed: failed, Log: logr.Discard()}).Compile(&config.Snapshot{Objects: objects})
	for _, conditions := range found {
		for _, c := range conditions {
			if c.Status == "False" {
				return nil, fmt.Errorf("%s: %s", file, c.Message)
			}
		}
	}
	if !p.filter.Binds() {
		return nil, fmt.Errorf("%s has no FilterBinding of a RegoPolicy", file)
	}
	p.limiter = throttle.NewLimiter(throttle.Options{Now: func() time.Time { return p.now }})
	return p, nil
}

// read replays the requests of a log in its order, each once.
func (p *replay) read(ctx context.Context, log io.Reader) error {
	decoder := json.NewDecoder(log)
	for {
		var e auditv1.Event
		if err := decoder.Decode(&e); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		if !isCounted(&e) {
			continue
		}
		if at := e.RequestReceivedTimestamp.Time; at.After(p.now) {
			p.now = at
		}
		if err := p.replay(ctx, &e); err != nil {
			return err
		}
	}
}

// isCounted picks one event of each request: the API server tells of watches when
// they have begun, and of all when they have ended.
func isCounted(e *auditv1.Event) bool {
	if e.Verb == "watch" {
		return e.Stage == auditv1.StageResponseStarted
	}
	return e.Stage == auditv1.StageResponseComplete
}

// paths are read as the proxy reads them.
var paths = request.RequestInfoFactory{APIPrefixes: sets.NewString("api", "apis"), GrouplessAPIPrefixes: sets.NewString("api")}

// methods are those of verbs; get, list and watch have none of their own.
var methods = map[string]string{
	"create": http.MethodPost, "update": http.MethodPut, "patch": http.MethodPatch, "delete": http.MethodDelete, "deletecollection": http.MethodDelete,
}

func (p *replay) replay(ctx context.Context, e *auditv1.Event) error {
	r, err := http.NewRequestWithContext(ctx, cmp.Or(methods[e.Verb], http.MethodGet), e.RequestURI, nil)
	if err != nil {
		return fmt.Errorf("audit event %s: %w", e.AuditID, err)
	}
	info, err := paths.NewRequestInfo(r)
	if err != nil {
		return fmt.Errorf("audit event %s: %w", e.AuditID, err)
	}
	r.Header.Set("User-Agent", e.UserAgent)
	if len(e.SourceIPs) > 0 {
		r.RemoteAddr = net.JoinHostPort(e.SourceIPs[0], "0")
	}
	caller := callerOf(&e.User)
	r = r.WithContext(request.WithUser(request.WithRequestInfo(r.Context(), info), caller))
	p.requests++
	next := pipeline.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) error {
		if p.failed != "" {
			return nil // it is told of below
		}
		if outcome, by := p.limiter.Replay(limit.From(r.Context())); by != nil {
			p.fates[fate{outcome, "limit " + by.ID + " of policy " + by.Policy, caller.Name}]++
			return nil
		}
		if by := narrowedBy(r.Context(), info); by != "" {
			p.fates[fate{"narrowed", "selectors of binding " + by, caller.Name}]++
		}
		return nil
	})
	p.failed = ""
	switch err := p.filter.ServeHTTP(unwritten{}, r, next); {
	case p.failed != "":
		p.fates[fate{outcomeFailed, p.failed, caller.Name}]++
	case err != nil:
		p.fates[fate{"denied", pipeline.StatusOf(err).Message, caller.Name}]++
	}
	return nil
}

// narrowedBy names the first binding whose policy has selectors that are about a
// request; none is empty.
func narrowedBy(ctx context.Context, info *request.RequestInfo) string {
	of := func(r v1alpha1.ViewResource) bool {
		return (r.Group == "*" || r.Group == info.APIGroup) && (r.Resource == "*" || r.Resource == info.Resource)
	}
	for _, n := range view.NarrowingsFrom(ctx) {
		isAbout := n.Spec.Namespaces != nil && (info.Namespace != "" || info.Resource == "namespaces" || info.Name == "") ||
			slices.ContainsFunc(n.Spec.Hidden, of) || slices.ContainsFunc(n.Spec.Objects, func(r v1alpha1.ViewRule) bool { return slices.ContainsFunc(r.Resources, of) })
		if isAbout {
			return n.Policy
		}
	}
	return ""
}

func callerOf(u *authenticationv1.UserInfo) *user.DefaultInfo {
	extra := map[string][]string{}
	for name, values := range u.Extra {
		extra[name] = values
	}
	return &user.DefaultInfo{Name: u.Username, UID: u.UID, Groups: u.Groups, Extra: extra}
}

// unwritten takes the header of an answer that nobody gets.
type unwritten struct{}

func (unwritten) Header() http.Header         { return http.Header{} }
func (unwritten) Write(p []byte) (int, error) { return len(p), nil }
func (unwritten) WriteHeader(int)             {}

// print shows what would have become of how many, the most first.
func (p *replay) print(out io.Writer) error {
	all := slices.SortedFunc(maps.Keys(p.fates), func(a, b fate) int {
		return cmp.Or(cmp.Compare(p.fates[b], p.fates[a]), strings.Compare(a.user, b.user), strings.Compare(a.because, b.because), strings.Compare(a.outcome, b.outcome))
	})
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "REQUESTS\tOUTCOME\tUSER\tBECAUSE")
	rest := p.requests
	for _, v := range all {
		rest -= p.fates[v]
		fmt.Fprintf(w, "%d\t%s\t%s\t%s\n", p.fates[v], v.outcome, v.user, v.because)
	}
	fmt.Fprintf(w, "%d\tadmitted\t\t\n", rest)
	if err := w.Flush(); err != nil {
		return fmt.Errorf("print what would have been: %w", err)
	}
	if slices.ContainsFunc(all, func(f fate) bool { return f.outcome == outcomeFailed }) {
		return errFailed
	}
	return nil
}
