package names

import (
	"encoding/json"
	"errors"
	"fmt"
	"mime"
	"net/http"
	"strconv"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apiserver/pkg/endpoints/request"

	"github.com/portico-proxy/portico/core/cache/wire"
	"github.com/portico-proxy/portico/core/telemetry"
)

// An Answer is what a request is answered with, whose names are exchanged on their
// way to the tenant. It serves that request alone.
type Answer struct {
	under  http.ResponseWriter
	reader *reader
	info   *request.RequestInfo
	head   bool
	form   form
	code   int
	begun  bool
	most   int    // that is held at once, in bytes
	buf    []byte // of what is read whole
	split  splitter
	err    error // why it cannot be told
}

// A form is how an answer is read.
type form int

const (
	undecided form = iota
	raw            // as it is: what a container says
	list           // an item at a time
	stream         // a frame at a time
	object         // whole: one JSON document
	refusal        // whole: a Status, or what a container says
	page           // whole: something that people read
)

// NewAnswer returns an answer to r, as it goes to the API server, that is written to
// w. [Answer.Finish] is to be called at its end.
func NewAnswer(w http.ResponseWriter, r *http.Request, m *Mapping) *Answer {
	info, _ := request.RequestInfoFrom(r.Context())
	a := &Answer{under: w, reader: newReader(m, info), info: info, head: r.Method == http.MethodHead, most: maxPart}
	a.split.read = a.part
	return a
}

// Header is the answer's.
func (a *Answer) Header() http.Header { return a.under.Header() }

// Unwrap lets http.ResponseController reach the connection.
func (a *Answer) Unwrap() http.ResponseWriter { return a.under }

// WriteHeader decides how the answer is read. It is sent once something of it can
// be.
func (a *Answer) WriteHeader(code int) {
	switch {
	case a.form != undecided:
		return
	case code < http.StatusOK && code != http.StatusSwitchingProtocols:
		a.under.WriteHeader(code)
		return
	}
	a.code, a.form = code, a.formOf(code)
	if a.form == page || a.form == refusal {
		a.most = min(a.most, maxPage)
	}
	a.split.list, a.split.most = a.form == list, a.most
	for _, name := range []string{"Warning", "Location"} {
		for i, v := range a.Header()[name] {
			a.Header()[name][i] = a.reader.Text(v)
		}
	}
	if a.form != raw || a.head {
		a.Header().Del("Content-Length")
	}
	if a.form == raw {
		a.begin()
	}
}

// formOf says how to read what comes with a code. What nobody here can read is not
// shown.
func (a *Answer) formOf(code int) form {
	media, _, _ := mime.ParseMediaType(a.Header().Get("Content-Type"))
	plain := a.Header().Get("Content-Encoding") == ""
	isProxy := a.info.Subresource == "proxy" || a.info.Verb == "proxy"
	talks := Talks(a.info)
	good := code < http.StatusMultipleChoices
	switch {
	case a.head, code == http.StatusSwitchingProtocols, code == http.StatusNoContent, code == http.StatusNotModified:
		return raw
	case isProxy && media == "text/html" && plain:
		return page // in which the API server writes paths
	case talks && code < http.StatusBadRequest:
		return raw
	case talks && media == wire.JSON.MediaType() && plain:
		return refusal
	case isProxy && !strings.HasPrefix(media, "application/vnd.kubernetes."):
		return raw
	case !plain:
	case media == wire.JSON.MediaType():
		return a.formOfJSON(good)
	case !good && strings.HasPrefix(media, "text/"):
		return page
	}
	a.err = apierrors.NewGenericServerResponse(max(code, http.StatusBadRequest), a.info.Verb, a.reader.resource, "", fmt.Sprintf("the answer is of type %q, which is not shown", media), 0, false)
	return object
}

func (a *Answer) formOfJSON(good bool) form {
	switch {
	case good && a.info.Verb == "watch":
		return stream
	case good && a.reader.isMany():
		return list
	}
	return object
}

// Talks reports whether a request is answered by a container.
func Talks(info *request.RequestInfo) bool {
	return telemetry.LongRunning(info) && info.Verb != "watch"
}

func (a *Answer) begin() {
	if !a.begun {
		a.begun = true
		a.under.WriteHeader(a.code)
	}
}

// Write takes a piece of the answer. It fails where the answer has to break off:
// before anything is sent the rest is taken and dropped, so that what is wrong can
// be told.
func (a *Answer) Write(p []byte) (int, error) {
	a.WriteHeader(http.StatusOK)
	switch {
	case a.err != nil && a.isLost():
		return 0, a.err
	case a.err != nil:
		return len(p), nil
	case a.form == raw:
		return a.under.Write(p)
	case a.form == list, a.form == stream:
		out, err := a.split.write(p)
		if err == nil && len(out) > 0 {
			a.begin()
			_, err = a.under.Write(out)
		}
		return a.took(p, err)
	}
	if len(a.buf)+len(p) > a.most {
		return a.took(p, wire.ErrTooLarge)
	}
	a.buf = append(a.buf, p...)
	return len(p), nil
}

func (a *Answer) took(p []byte, err error) (int, error) {
	a.err = err
	if err != nil && a.isLost() {
		return 0, err
	}
	return len(p), nil
}

// isLost reports whether it is too late to tell what is wrong, or nobody would come
// to it.
func (a *Answer) isLost() bool { return a.begun || a.form == stream }

// FlushError sends what can be sent.
func (a *Answer) FlushError() error {
	switch {
	case a.form == undecided:
		a.WriteHeader(http.StatusOK)
		return a.FlushError()
	case a.form == stream && a.err == nil:
		a.begin()
	case !a.begun:
		return nil
	}
	return http.NewResponseController(a.under).Flush()
}

// part reads a frame of a watch, or a part of a list.
func (a *Answer) part(in, name string, value []byte) ([]byte, error) {
	switch {
	case in != "":
		return a.reader.element(in, value)
	case name != "":
		return a.reader.member(name, value)
	}
	return a.reader.frame(value)
}

// Finish sends the rest, or says why the answer cannot be shown. err is what the
// chain says of the request.
func (a *Answer) Finish(err error) error {
	switch {
	case err != nil:
		return a.reader.refusal(err)
	case a.err != nil:
		return a.reader.refusal(fmt.Errorf("exchange names of namespaces: %w", a.err))
	}
	switch a.form {
	case undecided, raw:
		return nil
	case list, stream:
		if err := a.split.close(); err != nil {
			return fmt.Errorf("exchange names of namespaces: %w", err)
		}
		a.begin()
		return nil
	}
	out, err := a.rest()
	if err != nil {
		return fmt.Errorf("exchange names of namespaces: %w", err)
	}
	a.Header().Set("Content-Length", strconv.Itoa(len(out)))
	a.begin()
	_, err = a.under.Write(out)
	return err
}

// rest is what was read whole.
func (a *Answer) rest() ([]byte, error) {
	switch {
	case len(a.buf) == 0:
		return nil, nil
	case a.form == page:
		return []byte(a.reader.Text(string(a.buf))), nil
	case !json.Valid(a.buf):
		if a.form == refusal {
			return a.buf, nil
		}
		return nil, errUnreadable
	case a.form == refusal && !isStatus(a.buf):
		return a.buf, nil
	}
	return a.reader.read(a.buf)
}

// refusal is an error in the tenant's words.
func (r *reader) refusal(err error) error {
	status := apierrors.APIStatus(nil)
	if !errors.As(err, &status) {
		return err // which nobody is told of
	}
	text, err := json.Marshal(status.Status())
	if err != nil {
		return fmt.Errorf("write refusal: %w", err)
	}
	if text, err = r.status(text); err != nil {
		return fmt.Errorf("exchange names of namespaces: %w", err)
	}
	var out metav1.Status
	if err := json.Unmarshal(text, &out); err != nil {
		return fmt.Errorf("read refusal: %w", err)
	}
	return &apierrors.StatusError{ErrStatus: out}
}
