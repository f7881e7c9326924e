package body

import (
	"bytes"
	"cmp"
	"encoding/json"
	"net/http"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// An Answer is one that nobody has been sent yet: a filter has asked for it on a
// caller's behalf, or wants to look at it first.
type Answer struct {
	// Limit is how many bytes of the body are kept; 0 means [Max]. TooLong says that
	// there were more.
	Limit   int
	Code    int
	Body    bytes.Buffer
	TooLong bool

	header http.Header
}

// Header is the answer's.
func (a *Answer) Header() http.Header {
	if a.header == nil {
		a.header = http.Header{}
	}
	return a.header
}

// WriteHeader notes the code, once.
func (a *Answer) WriteHeader(code int) {
	if code >= http.StatusOK && a.Code == 0 {
		a.Code = code
	}
}

// Write never fails: whoever answers has nothing to mend.
func (a *Answer) Write(p []byte) (int, error) {
	a.WriteHeader(http.StatusOK)
	if a.Body.Len()+len(p) > cmp.Or(a.Limit, Max) {
		a.TooLong = true
		return len(p), nil
	}
	return a.Body.Write(p)
}

// Flush has nothing to do, and must be there for what streams.
func (a *Answer) Flush() {}

// Status is the API server's refusal, nil if the answer is none.
func (a *Answer) Status() *metav1.Status {
	status := &metav1.Status{}
	if json.Unmarshal(a.Body.Bytes(), status) != nil || status.Status != metav1.StatusFailure || int(status.Code) != a.Code {
		return nil
	}
	return status
}

var _ http.Flusher = (*Answer)(nil)
