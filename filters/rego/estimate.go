package rego

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/portico-proxy/portico/core/talkers"
)

// Of kube-apiserver's (k8s.io/apiserver/pkg/util/flowcontrol/request).
const (
	maxSeats = 100
	// streamed is what a list takes of its memory at most that it need not read
	// from etcd.
	streamed = 1_000_000
)

// estimate is what a request will cost.
type estimate struct{ objects, bytes, seats int64 }

// estimate is the same for as long as the request is looked at.
func (f *Facts) estimate() estimate {
	if f.estimated.seats == 0 {
		f.estimated = f.measure()
	}
	return f.estimated
}

// measure estimates as API Priority and Fairness does, from how large the collection
// was when it was last listed through this proxy. What is not known takes one seat,
// as there.
func (f *Facts) measure() estimate {
	e := estimate{seats: 1}
	if f.Account == nil || !f.readsCollection() {
		return e
	}
	size, ok := f.Account.Size(f.Info.APIGroup, f.Info.Resource, f.Info.Namespace)
	if !ok {
		return e
	}
	cached := f.isFromCache()
	e.objects, e.bytes = f.objects(size, cached), size.Bytes
	if size.Objects > 0 {
		e.bytes = e.objects * (size.Bytes / size.Objects)
	}
	memory := e.bytes
	if cached {
		memory = min(memory, streamed)
	}
	e.seats = min(max((memory+talkers.BytesPerSeat-1)/talkers.BytesPerSeat, 1), maxSeats)
	return e
}

// readsCollection reports whether a request reads more than one object at once.
func (f *Facts) readsCollection() bool {
	switch f.Info.Verb {
	case "list":
		return f.Info.Name == ""
	case "watch":
		version, initial := f.option("resourceVersion"), f.option("sendInitialEvents")
		return version == "" || version == "0" || initial == "true" || initial == "1"
	}
	return false
}

// isFromCache reports whether the API server would not ask etcd
// (k8s.io/apiserver/pkg/storage/cacher/delegator).
func (f *Facts) isFromCache() bool {
	if f.Info.Verb == "watch" {
		return true
	}
	version := f.option("resourceVersion")
	switch metav1.ResourceVersionMatch(f.option("resourceVersionMatch")) {
	case metav1.ResourceVersionMatchNotOlderThan:
		return true
	case "":
		legacyExact := f.limit() > 0 && version != "" && version != "0"
		return f.option("continue") == "" && !legacyExact
	}
	return false
}

// objects are those that the API server has in its hands at once.
func (f *Facts) objects(size talkers.Size, cached bool) int64 {
	limited := size.Objects
	if limit := f.limit(); limit > 0 {
		limited = min(limited, limit)
	}
	if !cached && (f.option("labelSelector") != "" || f.option("fieldSelector") != "") {
		return max(limited, size.Objects/2)
	}
	return limited
}
