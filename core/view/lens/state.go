package lens

import (
	"fmt"
	"net/http"
	"net/url"
	"path"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apiserver/pkg/endpoints/request"

	"github.com/portico-proxy/portico/core/cache/wire"
	"github.com/portico-proxy/portico/core/view"
)

// A watch tells what an object has become, and not what it was. Whether the caller
// has been shown it before is known of watches that begin with the state. Of others
// the state that they begin at is listed first.

// RoundTrip sends r by send.
func (l *Lens) RoundTrip(r *http.Request, send func(*http.Request) (*http.Response, error)) (*http.Response, error) {
	query := r.URL.Query()
	if l.info.Verb != "watch" || beginsWithState(query) {
		return send(r)
	}
	res, err := send(l.stateRequest(r, query))
	if err != nil {
		return nil, err
	}
	res.Request = r
	if res.StatusCode != http.StatusOK {
		return res, nil // so the watch could not have begun either
	}
	defer func() { _ = res.Body.Close() }()
	if err := l.remember(res); err != nil {
		return nil, fmt.Errorf("%w: %w", view.ErrUnseen, err)
	}
	if rv := query.Get("resourceVersion"); rv == "" || rv == "0" {
		r = r.Clone(r.Context())
		query.Set("resourceVersion", l.version)
		r.URL.RawQuery = query.Encode()
	}
	return send(r)
}

// beginsWithState follows apimachinery's SetListOptionsDefaults.
func beginsWithState(query url.Values) bool {
	if sent := query["sendInitialEvents"]; len(sent) > 0 {
		return sent[0] != "false" && sent[0] != "0"
	}
	rv := query.Get("resourceVersion")
	return rv == "" || rv == "0"
}

// stateRequest lists what the watch r begins at.
func (l *Lens) stateRequest(r *http.Request, watch url.Values) *http.Request {
	info := *l.info
	info.Verb = "list"
	r = r.Clone(request.WithRequestInfo(r.Context(), &info))
	query := url.Values{}
	for _, name := range []string{"labelSelector", "fieldSelector", "includeObject"} {
		if v, ok := watch[name]; ok {
			query[name] = v
		}
	}
	if rv := watch.Get("resourceVersion"); rv != "" && rv != "0" {
		query.Set("resourceVersion", rv)
		query.Set("resourceVersionMatch", string(metav1.ResourceVersionMatchExact))
	}
	// The older way to say watch has it in the path.
	before, after, old := strings.Cut(r.URL.Path, "/"+info.APIVersion+"/watch/")
	if old {
		r.URL.Path, r.URL.RawPath = before+"/"+info.APIVersion+"/"+after, ""
		if info.Name != "" {
			r.URL.Path = path.Dir(r.URL.Path)
			query.Set("fieldSelector", "metadata.name="+info.Name)
		}
	}
	r.URL.RawQuery = query.Encode()
	return r
}

// remember keeps what exists of the list in res.
func (l *Lens) remember(res *http.Response) error {
	if err := checkReadable(res); err != nil {
		return err
	}
	l.keep = true
	defer func() { l.keep = false }()
	nowhere := &sink{yield: func([]byte, error) bool { return true }}
	return l.list(nowhere, wire.NewScanner(res.Body))
}
