// Command tenant-module is a filter for whose callers there are only namespaces of
// one prefix, and who are not shown what is in Secrets.
package main

import (
	"errors"
	"strings"

	"github.com/portico-proxy/portico/plugins/guest"
)

//go:wasmexport configure
func configure() int32 {
	return guest.Configure(func() error {
		if guest.Config("/prefix") == "" {
			return errors.New("config.prefix must be how the tenant's namespaces begin")
		}
		return nil
	})
}

//go:wasmexport on_request
func onRequest() int32 { return guest.OnRequest(admit) }

//go:wasmexport on_object
func onObject() int32 { return guest.OnObject(show) }

// admit guards what views do not: writes, and subresources that are no objects.
func admit(r guest.Request) guest.Decision {
	if name := r.Namespace(); name != "" && !isOwn(name) {
		return guest.Refuse(guest.Refusal{Code: 404, Reason: "NotFound", Message: "namespaces " + guest.Quote(name) + " not found"})
	}
	if r.Resource() == "secrets" && (r.Verb() == "update" || r.Verb() == "patch") {
		return guest.Deny("Secrets are shown without their data: delete this one and create another")
	}
	return guest.Continue
}

// show leaves out what is in others' namespaces, and refuses to write it.
func show(r guest.Request, o guest.Object) guest.Decision {
	name := o.Namespace()
	if r.Resource() == "namespaces" {
		name = o.Name()
	}
	if name != "" && !isOwn(name) {
		return guest.Drop
	}
	// Of what is shown there is no verb. What is written keeps its data.
	if r.Resource() == "secrets" && r.Verb() == "" {
		o.Remove("/data")
	}
	return guest.Keep
}

func isOwn(namespace string) bool { return strings.HasPrefix(namespace, guest.Config("/prefix")) }

func main() {}
