package wire_test

import (
	"encoding/base64"
	"fmt"
	"net/http"
	"strings"

	"github.com/portico-proxy/portico/test/e2e/wire"
)

// read is a request that memory may be able to answer, most of them right.
func (m maker) read() random {
	r := random{Request: wire.Request{Method: http.MethodGet}}
	r.Target = m.readPath()
	var parts []string
	if m.oneIn(8) {
		parts = append(parts, "watch=1", "timeoutSeconds=1")
	}
	for range m.IntN(4) {
		parts = append(parts, m.option())
	}
	if len(parts) > 0 {
		r.Target += "?" + strings.Join(parts, "&")
	}
	r.add("Authorization", "Bearer "+cp.Token(pick(m, "admin", "admin", "admin", "admin", "admin", "admin", reader)).Token)
	if accept := pick(m, readTypes...); accept != "" {
		r.add("Accept", accept)
	}
	if m.oneIn(4) {
		r.add("Accept-Encoding", "gzip")
	}
	return r
}

func (m maker) readPath() string {
	if m.oneIn(8) {
		return pick(m, objects...)
	}
	return pick(m, collections...)
}

// option is one parameter of a read that makes sense somewhere.
func (m maker) option() string {
	token := base64.RawURLEncoding.EncodeToString(fmt.Appendf(nil, `{"v":"meta.k8s.io/v1","rv":%d,"start":"cm-%02d\u0000"}`, pick(m, -1, 0, 1, 50), m.IntN(70)))
	return pick(m,
		"limit="+pick(m, "0", "1", "7", "500"), "continue="+token,
		"resourceVersion="+pick(m, "", "0", "0", "0", "1", "10", "100", "999999999"),
		"resourceVersion=0&resourceVersionMatch=NotOlderThan", "resourceVersionMatch=Exact&resourceVersion="+pick(m, "0", "5", "120"),
		"resourceVersionMatch=NotOlderThan&resourceVersion="+pick(m, "0", "5", "120", ""),
		"labelSelector="+pick(m, "half%3D1", "half=1", "half+in+(0,1)", "!half", "half,unicode%3Dx"),
		"fieldSelector="+pick(m, "metadata.name%3Dcm-03", "metadata.name=pod-0", "metadata.name!=cm-03", "metadata.namespace=wire", "spec.nodeName=", "status.phase=Pending"),
		"sendInitialEvents=false&resourceVersionMatch=NotOlderThan",
		// Of the newest state it takes about a second to say that this was all.
		"allowWatchBookmarks=true&resourceVersion=0",
		"sendInitialEvents=true&resourceVersionMatch=NotOlderThan&resourceVersion=0",
		"pretty=0", "timeout=5m",
	)
}

// readTypes are what clients ask for, and a little more.
var readTypes = []string{
	"", "", "application/json", "application/json", "application/vnd.kubernetes.protobuf", "application/vnd.kubernetes.protobuf", "application/vnd.kubernetes.protobuf,application/json",
	"application/vnd.kubernetes.protobuf, */*", "application/json, */*", "*/*", "application/yaml", "application/*", "application/cbor,application/json", "application/json;q=0.5,application/vnd.kubernetes.protobuf",
	"application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1", "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1",
	"application/vnd.kubernetes.protobuf;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1", "application/vnd.kubernetes.protobuf;as=PartialObjectMetadata;g=meta.k8s.io;v=v1",
	"application/json;as=Table;g=meta.k8s.io;v=v1,application/json", "application/json;stream=watch", "application/vnd.kubernetes.protobuf;stream=watch",
}
