package wasm

import (
	"net/http"
	"net/url"

	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/endpoints/request"
)

// Described is a request in words, for whoever tries a module without a proxy.
type Described struct {
	User        string            `json:"user,omitempty"`
	Groups      []string          `json:"groups,omitempty"`
	Verb        string            `json:"verb,omitempty"`
	Group       string            `json:"group,omitempty"`
	Version     string            `json:"version,omitempty"`
	Resource    string            `json:"resource,omitempty"`
	Subresource string            `json:"subresource,omitempty"`
	Namespace   string            `json:"namespace,omitempty"`
	Name        string            `json:"name,omitempty"`
	Path        string            `json:"path,omitempty"`
	SourceIP    string            `json:"sourceIP,omitempty"`
	Headers     map[string]string `json:"headers,omitempty"`
	Params      map[string]string `json:"params,omitempty"`
}

// Facts are what a module may know of the request.
func (d *Described) Facts() Facts {
	query, header := url.Values{}, http.Header{}
	for name, value := range d.Params {
		query.Set(name, value)
	}
	for name, value := range d.Headers {
		header.Set(name, value)
	}
	return Facts{
		User: &user.DefaultInfo{Name: d.User, Groups: d.Groups},
		Info: &request.RequestInfo{
			IsResourceRequest: d.Resource != "", Verb: d.Verb, APIGroup: d.Group, APIVersion: d.Version, Resource: d.Resource,
			Subresource: d.Subresource, Namespace: d.Namespace, Name: d.Name, Path: d.Path,
			LabelSelector: d.Params["labelSelector"], FieldSelector: d.Params["fieldSelector"],
		},
		Request: &http.Request{Header: header, RemoteAddr: d.SourceIP + ":0", URL: &url.URL{Path: d.Path, RawQuery: query.Encode()}},
	}
}
