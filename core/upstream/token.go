package upstream

import (
	"encoding/base64"
	"net/http"
	"strings"

	"k8s.io/streaming/pkg/httpstream/wsstream"
)

// websocketPrefix marks the subprotocol in which browsers send tokens
// (k8s.io/apiserver/pkg/authentication/request/websocket).
const websocketPrefix = "base64url.bearer.authorization.k8s.io."

// TokenOf returns the bearer token that the API server would read from r: the
// first Authorization header's, or else, if r asks for a WebSocket, that of its
// subprotocol.
func TokenOf(r *http.Request) string {
	scheme, rest, _ := strings.Cut(strings.TrimSpace(r.Header.Get("Authorization")), " ")
	if token, _, _ := strings.Cut(rest, " "); strings.EqualFold(scheme, "bearer") && token != "" {
		return token
	}
	if !wsstream.IsWebSocketRequest(r) {
		return ""
	}
	for _, header := range r.Header["Sec-Websocket-Protocol"] {
		for protocol := range strings.SplitSeq(header, ",") {
			encoded, ok := strings.CutPrefix(strings.TrimSpace(protocol), websocketPrefix)
			if !ok {
				continue
			}
			token, err := base64.RawURLEncoding.DecodeString(encoded)
			if err == nil {
				return string(token)
			}
		}
	}
	return ""
}
