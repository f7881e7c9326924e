// Command costs is a filter that reports what each caller costs: how many
// requests it has made, and how many bytes it was sent.
package main

import (
	"strconv"

	"github.com/portico-proxy/portico/plugins/guest"
)

const hour = 3600 * 1000

//go:wasmexport on_end
func onEnd() { guest.OnEnd(charge) }

// charge adds to the hour's account of the caller, and reports it whenever it
// has another hundred megabytes, or as much as config.every says.
func charge(r guest.Request, e guest.End) {
	every := int64(100 << 20)
	if text, ok := guest.ConfigValue("/every"); ok {
		if n, err := strconv.ParseInt(text, 10, 64); err == nil && n > 0 {
			every = n
		}
	}
	requests := guest.Count("requests "+r.User(), 1, hour)
	bytes := guest.Count("bytes "+r.User(), e.Bytes, hour)
	if bytes/every > (bytes-e.Bytes)/every {
		guest.Log(r.User() + " was sent " + strconv.FormatInt(bytes, 10) + " bytes by " + strconv.FormatInt(requests, 10) + " requests")
	}
}

func main() {}
