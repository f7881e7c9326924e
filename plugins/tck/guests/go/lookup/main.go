// Command lookup is the guest that the cases of plugins/tck about lookup speak
// of, in Go.
package main

import "github.com/portico-proxy/portico/plugins/guest"

//go:wasmexport on_request
func onRequest() int32 { return guest.OnRequest(judge) }

func judge(r guest.Request) guest.Decision {
	switch r.Header("X-Case") {
	case "label":
		guest.Warn(guest.Lookup("namespaces", "", r.Namespace()).Label("team"))
	case "nested":
		guest.Warn(guest.Lookup("deployments.apps", r.Namespace(), "web").String("/spec/template/kind"))
	case "missing":
		if !guest.Lookup("namespaces", "", "elsewhere").Exists() {
			guest.Warn("none")
		}
	case "elsewhere":
		if guest.Lookup("deployments.apps", "bank", "web").Exists() {
			guest.Warn("not declared")
		}
	case "undeclared":
		if guest.Lookup("secrets", r.Namespace(), "token").Exists() {
			guest.Warn("not declared")
		}
	}
	return guest.Continue
}

//go:wasmexport on_object
func onObject() int32 { return guest.OnObject(look) }

func look(r guest.Request, o guest.Object) guest.Decision {
	if team := guest.Lookup("namespaces", "", r.Namespace()).Label("team"); team != "" {
		o.SetLabel("team", team)
	}
	return guest.Keep
}

func main() {}
