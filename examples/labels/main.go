// Command labels is a filter that gives every object the label of the team whose
// namespace it is in, or refuses it.
package main

import (
	"errors"
	"strings"

	"github.com/portico-proxy/portico/plugins/guest"
)

//go:wasmexport configure
func configure() int32 {
	return guest.Configure(func() error {
		if guest.Config("/label") == "" {
			return errors.New("config.label must name the label")
		}
		return nil
	})
}

//go:wasmexport on_object
func onObject() int32 { return guest.OnObject(label) }

// label takes the team from the namespace, as in team-a-web.
func label(r guest.Request, o guest.Object) guest.Decision {
	key := guest.Config("/label")
	team, _, ok := strings.Cut(strings.TrimPrefix(r.Namespace(), "team-"), "-")
	if !ok || !strings.HasPrefix(r.Namespace(), "team-") {
		return guest.Keep
	}
	switch o.Label(key) {
	case team:
		return guest.Keep
	case "":
		o.SetLabel(key, team)
		return guest.Keep
	}
	return guest.Deny("the label " + key + " must be " + team + " in the namespace " + r.Namespace())
}

func main() {}
