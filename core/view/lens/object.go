package lens

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"strconv"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apiserver/pkg/endpoints/handlers/responsewriters"

	"github.com/portico-proxy/portico/core/cache/wire"
)

// applyToObject leaves what exists of a single object. What does not is answered as
// the API server answers what does not exist.
func (l *Lens) applyToObject(res *http.Response) error {
	raw, err := io.ReadAll(io.LimitReader(res.Body, wire.MaxObject+1))
	if err != nil {
		return err
	}
	if len(raw) > wire.MaxObject {
		return wire.ErrTooLarge
	}
	out, err := l.object(raw)
	if err != nil {
		return err
	}
	if out == nil {
		if out, err = l.absent(res, raw); err != nil {
			return err
		}
	}
	_ = res.Body.Close()
	res.Body = io.NopCloser(bytes.NewReader(out))
	res.ContentLength = int64(len(out))
	res.Header.Set("Content-Length", strconv.Itoa(len(out)))
	return nil
}

// object is what a caller gets of a document that is one object, nil for nothing.
func (l *Lens) object(raw []byte) ([]byte, error) {
	kind, version := wire.Text(wire.Member(raw, "kind")), wire.Text(wire.Member(raw, "apiVersion"))
	switch {
	case kind == "Status" && version == "v1":
		return raw, nil
	case l.form.table && kind == "Table" && isMeta(version):
		return l.table(raw)
	}
	if err := l.expects(raw); err != nil {
		return nil, err
	}
	o, seen, err := l.see(bytes.TrimRight(raw, "\n"))
	if seen == nil || err != nil {
		return nil, err
	}
	if l.info.Subresource == "" && l.info.Verb != "create" && !l.judges(o) {
		return nil, errUnreadable // what is stored has a name
	}
	return append(bytes.Clone(l.form.render(seen)), '\n'), nil
}

// expects refuses an object that is of another group, or version, than was asked
// for: a table and metadata alone are, and nobody would find in them what views
// look for.
func (l *Lens) expects(raw []byte) error {
	version := wire.Text(wire.Member(raw, "apiVersion"))
	isSame := l.info.Subresource == "" || l.info.Subresource == "status"
	if isMeta(version) || isSame && version != l.resource.GroupVersion().String() {
		return errUnreadable
	}
	return nil
}

// isMeta reports the versions of what the API server makes of objects.
func isMeta(version string) bool { return strings.HasPrefix(version, metav1.GroupName+"/") }

// table is a single object as a table, nil if it does not exist.
func (l *Lens) table(raw []byte) ([]byte, error) {
	var out []byte
	for part, err := range l.parts(func(to *sink) error { return l.list(to, wire.NewScanner(bytes.NewReader(raw))) }) {
		if err != nil {
			return nil, err
		}
		out = append(out, part...)
	}
	if l.left == 0 {
		return nil, nil
	}
	return out, nil
}

// absent is the answer where the object in raw does not exist for the caller. What
// somebody has written was written though it does not exist for him any more: he is
// told which object it is, and at which resourceVersion, and nothing else of it.
func (l *Lens) absent(res *http.Response, raw []byte) ([]byte, error) {
	if l.info.Verb != "get" {
		return bare(raw)
	}
	out := &written{header: res.Header}
	err := apierrors.NewNotFound(l.resource.GroupResource(), l.info.Name)
	// It depends on Accept how the API server writes it.
	responsewriters.ErrorNegotiated(err, statusCodecs, schema.GroupVersion{Version: "v1"}, out, l.asked)
	res.StatusCode, res.Status = out.code, ""
	return out.Bytes(), nil
}

// written is an answer that is not sent yet.
type written struct {
	bytes.Buffer
	header http.Header
	code   int
}

func (w *written) Header() http.Header  { return w.header }
func (w *written) WriteHeader(code int) { w.code = code }

// statusCodecs knows Status and nothing else.
var statusCodecs = func() runtime.NegotiatedSerializer {
	scheme := runtime.NewScheme()
	metav1.AddToGroupVersion(scheme, schema.GroupVersion{Version: "v1"})
	return serializer.NewCodecFactory(scheme).WithoutConversion()
}()

// bare is what names the object in raw.
func bare(raw []byte) ([]byte, error) {
	o, err := wire.Look(raw)
	if err != nil {
		return nil, err
	}
	named := metav1.PartialObjectMetadata{TypeMeta: metav1.TypeMeta{
		Kind: wire.Text(wire.Member(raw, "kind")), APIVersion: wire.Text(wire.Member(raw, "apiVersion")),
	}}
	named.Name, named.Namespace, named.UID = o.Name(), o.Namespace(), types.UID(o.UID)
	named.ResourceVersion = wire.Text(wire.Member(wire.Member(raw, "metadata"), "resourceVersion"))
	out, err := json.Marshal(&named)
	return append(out, '\n'), err
}

// statusOf is err as the API server writes it.
func statusOf(err apierrors.APIStatus) ([]byte, error) {
	status := err.Status()
	status.TypeMeta = metav1.TypeMeta{Kind: "Status", APIVersion: "v1"}
	out, failed := json.Marshal(&status)
	return append(out, '\n'), failed
}
