package wasm

import (
	"encoding/json"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/endpoints/request"

	"github.com/portico-proxy/portico/core/body"
	"github.com/portico-proxy/portico/plugins/abi"
)

// Facts are what a guest may know of a request.
type Facts struct {
	User    user.Info
	Info    *request.RequestInfo
	Request *http.Request

	unknown error // why User is nil; no guest is asked then
	room    *body.Room
	passed  *passes

	query url.Values // nil until a guest asks
}

// End is how a request was answered.
type End struct {
	Code  int
	Bytes int64
	Took  time.Duration
}

// A Denial is a refusal in a guest's words.
type Denial struct {
	Code       int    `json:"code,omitempty"`
	Reason     string `json:"reason,omitempty"`
	Message    string `json:"message,omitempty"`
	RetryAfter int    `json:"retryAfter,omitempty"` // seconds; 0 says nothing
}

// objects are an object before and after what happened to it, as JSON.
type objects struct {
	event             abi.Event
	previous, current []byte
	sealed            bool // may not be changed
	changed           bool
}

func (f *Facts) attr(a abi.Attr) string {
	switch a {
	case abi.User:
		return f.User.GetName()
	case abi.UID:
		return f.User.GetUID()
	case abi.Verb:
		return f.Info.Verb
	case abi.APIGroup:
		return f.Info.APIGroup
	case abi.APIVersion:
		return f.Info.APIVersion
	case abi.Resource:
		return f.Info.Resource
	case abi.Subresource:
		return f.Info.Subresource
	case abi.Namespace:
		return f.Info.Namespace
	case abi.Name:
		return f.Info.Name
	case abi.Path:
		return f.Info.Path
	case abi.LabelSelector:
		return f.Info.LabelSelector
	case abi.FieldSelector:
		return f.Info.FieldSelector
	case abi.UserAgent:
		return f.Request.UserAgent()
	case abi.AuditID:
		return f.Request.Header.Get("Audit-Id")
	case abi.SourceIP:
		host, _, _ := net.SplitHostPort(f.Request.RemoteAddr)
		return host
	}
	return ""
}

// structured are the attributes that are JSON.
func (f *Facts) structured(a abi.Attr) (abi.Kind, []byte) {
	var value any = f.User.GetGroups()
	kind, empty := abi.Array, len(f.User.GetGroups()) == 0
	if a == abi.Extra {
		value, kind, empty = f.User.GetExtra(), abi.Object, len(f.User.GetExtra()) == 0
	}
	if empty {
		return abi.Absent, nil
	}
	b, err := json.Marshal(value)
	if err != nil {
		return abi.Absent, nil
	}
	return kind, b
}

// header gives a header of the request, but none that holds a credential.
func (f *Facts) header(name string) (string, bool) {
	name = http.CanonicalHeaderKey(name)
	if isCredential(name) {
		return "", false
	}
	values := f.Request.Header[name]
	return strings.Join(values, ", "), len(values) > 0
}

func (f *Facts) param(name string) (string, bool) {
	if f.query == nil {
		f.query = f.Request.URL.Query()
	}
	values := f.query[name]
	if len(values) == 0 {
		return "", false
	}
	return values[0], true
}
