// Command go is the guest that the cases of plugins/tck speak of, in Go.
package main

import (
	"errors"
	"strconv"

	"github.com/portico-proxy/portico/plugins/guest"
)

//go:wasmexport configure
func configure() int32 {
	return guest.Configure(func() error {
		if v, ok := guest.ConfigValue(""); !ok || v[0] != '{' {
			return errors.New("the configuration must be an object")
		}
		return nil
	})
}

//go:wasmexport on_request
func onRequest() int32 { return guest.OnRequest(judge) }

func judge(r guest.Request) guest.Decision {
	switch r.Header("X-Case") {
	case "deny":
		return guest.Deny("not here")
	case "slow":
		return guest.Refuse(guest.Refusal{Code: 429, Reason: "TooManyRequests", Message: "slower", RetryAfter: 7})
	case "warn":
		guest.Warn(r.User())
	case "param":
		guest.Warn(r.Param("fieldManager"))
	case "config":
		guest.Warn(guest.Config("/greeting"))
	case "group":
		guest.Warn(strconv.FormatBool(r.InGroup("devs")) + " " + strconv.FormatBool(r.InGroup("dev")))
	case "credential":
		if r.Header("authorization") != "" {
			guest.Warn("leaked")
		}
	}
	return guest.Continue
}

//go:wasmexport on_object
func onObject() int32 { return guest.OnObject(look) }

func look(_ guest.Request, o guest.Object) guest.Decision {
	switch hide := o.Label("hide"); {
	case hide == "yes":
		return guest.Deny("hidden")
	case hide == "rename":
		if o.SetString("/metadata/name", "other") {
			return guest.Deny("it could be renamed")
		}
	case o.Has("/metadata/annotations/secret"):
		o.Remove("/metadata/annotations/secret")
	case o.Label("team") == "":
		o.SetLabel("team", "web")
	}
	return guest.Keep
}

func main() {}
