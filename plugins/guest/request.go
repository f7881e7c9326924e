package guest

import (
	"github.com/portico-proxy/portico/plugins/abi"
	"github.com/portico-proxy/portico/plugins/guest/internal/host"
)

// Request is the request that the filter is asked about. Each of its methods
// asks the host once.
type Request struct{}

// User is the caller's name as the API server knows it.
func (Request) User() string { return attr(abi.User) }

// UID is the caller's, if it has one.
func (Request) UID() string { return attr(abi.UID) }

// Groups is a JSON array of the caller's groups. See [Request.InGroup].
func (Request) Groups() string { return attr(abi.Groups) }

// Extra is a JSON object of what else is known of the caller, each an array.
func (Request) Extra() string { return attr(abi.Extra) }

// Verb is the API's: get, list, watch, create, update, patch, delete,
// deletecollection or proxy; for what is about no resource, HTTP's in lower case.
func (Request) Verb() string { return attr(abi.Verb) }

// APIGroup is the resource's group; "" is the core group.
func (Request) APIGroup() string { return attr(abi.APIGroup) }

// APIVersion is the version that is asked for.
func (Request) APIVersion() string { return attr(abi.APIVersion) }

// Resource is the plural name, or "" where the request is about none.
func (Request) Resource() string { return attr(abi.Resource) }

// Subresource is what of the resource is meant, such as exec.
func (Request) Subresource() string { return attr(abi.Subresource) }

// Namespace is the object's.
func (Request) Namespace() string { return attr(abi.Namespace) }

// Name is the object's, if the path has it.
func (Request) Name() string { return attr(abi.Name) }

// Path is the URL's.
func (Request) Path() string { return attr(abi.Path) }

// UserAgent is what the client calls itself. Any client can call itself anything.
func (Request) UserAgent() string { return attr(abi.UserAgent) }

// SourceIP is the caller's address.
func (Request) SourceIP() string { return attr(abi.SourceIP) }

// LabelSelector is the one of a list or watch.
func (Request) LabelSelector() string { return attr(abi.LabelSelector) }

// FieldSelector is the one of a list or watch.
func (Request) FieldSelector() string { return attr(abi.FieldSelector) }

// AuditID joins what a filter logs with the API server's audit log.
func (Request) AuditID() string { return attr(abi.AuditID) }

// Header is a header of the request. Those that hold credentials are absent.
func (Request) Header(name string) string { return text(host.Header(name)) }

// Param is a parameter of the query. The API server ignores it in a delete that
// has a body, so a caller may say what he likes there.
func (Request) Param(name string) string { return text(host.Param(name)) }

// InGroup reports whether the caller is in a group.
func (r Request) InGroup(name string) bool { return contains(r.Groups(), name) }

func attr(id abi.Attr) string {
	_, s := host.Attr(id)
	return s
}

// contains reports whether a JSON array of strings, as the host writes it,
// contains one. Names with quotes or backslashes are in no array.
func contains(array, s string) bool {
	for i := 0; i+len(s)+2 <= len(array); i++ {
		if array[i] != '"' {
			continue
		}
		end := i + 1
		for end < len(array) && array[end] != '"' {
			if array[end] == '\\' {
				end++
			}
			end++
		}
		if end <= len(array) && array[i+1:min(end, len(array))] == s {
			return true
		}
		i = end
	}
	return false
}
