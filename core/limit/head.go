package limit

import "net/http"

// LargeHead is from how many bytes on the head of a request is worth counting: the
// API server takes a megabyte.
const LargeHead = 16 << 10

// HeadSize is about how long the head of r was, in bytes.
func HeadSize(r *http.Request) int {
	size := len(r.RequestURI)
	for name, values := range r.Header {
		for _, v := range values {
			size += len(name) + len(v)
		}
	}
	return size
}
