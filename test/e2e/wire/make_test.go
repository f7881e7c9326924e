package wire_test

import (
	"bytes"
	"compress/gzip"
	"encoding/base64"
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"

	"github.com/portico-proxy/portico/test/e2e/wire"
)

// maker makes requests by chance, most of them nearly right.
type maker struct{ *rand.Rand }

func (m maker) oneIn(n int) bool { return m.IntN(n) == 0 }

func pick[T any](m maker, of ...T) T { return of[m.IntN(len(of))] }

// random is a request that changes nothing: writes are dry runs.
type random struct {
	wire.Request
	prefix string // of the target, where the protocol allows it
}

const (
	namespace  = "/api/v1/namespaces/wire"
	configMaps = namespace + "/configmaps"
	gadgetsAt  = "/apis/wire.example.com/v1/namespaces/wire/gadgets"
)

var collections = []string{
	configMaps, namespace + "/pods", namespace + "/secrets", namespace + "/services", namespace + "/serviceaccounts", gadgetsAt,
	"/api/v1/namespaces", "/api/v1/nodes", "/api/v1/pods", "/api/v1/configmaps", "/api/v1/endpoints",
	"/apis/wire.example.com/v1beta1/gadgets", "/apis/apps/v1/deployments", "/apis/apps/v1/namespaces/wire/deployments",
	"/apis/rbac.authorization.k8s.io/v1/clusterroles", "/apis/apiextensions.k8s.io/v1/customresourcedefinitions",
	"/apis/flowcontrol.apiserver.k8s.io/v1/flowschemas", "/apis/batch/v1/jobs", "/api/v1/watch/namespaces/wire/configmaps",
}

var objects = []string{
	configMaps + "/cm-03", configMaps + "/cm-03", configMaps + "/none", namespace + "/pods/pod-0", namespace + "/pods/pod-1/status",
	namespace + "/secrets/secret", namespace + "/services/service", namespace, "/api/v1/nodes/node-a", gadgetsAt + "/gadget-0",
	gadgetsAt + "/gadget-1/status", gadgetsAt + "/gadget-1/scale", namespace + "/pods/pod-0/log", namespace + "/pods/pod-0/exec",
	namespace + "/pods/pod-0/binding", namespace + "/pods/pod-0/eviction", namespace + "/services/none/proxy/x/y",
	namespace + "/serviceaccounts/account/token", "/apis/rbac.authorization.k8s.io/v1/clusterroles/view",
	"/apis/apiextensions.k8s.io/v1/customresourcedefinitions/gadgets.wire.example.com",
}

var others = []string{
	"/", "/api", "/apis", "/api/v1", "/apis/apps", "/apis/apps/v1", "/apis/wire.example.com/v1", "/version", "/healthz", "/livez", "/readyz",
	"/livez/ping", "/healthz/none", "/openapi/v3", "/openapi/v3/apis/batch/v1", "/openapi/v3/none", "/openid/v1/jwks",
	"/.well-known/openid-configuration", "/api/v2", "/api/v2/pods", "/apis/none", "/apis/none/v1/things", "/apis/apps/v9/deployments",
	"/api/v1/things", configMaps + "/cm-03/none", "/foo", "/robots.txt", "/swagger.json", "/ui", "*", "/apis/authentication.k8s.io/v1/selfsubjectreviews",
	"/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", "/apis/authorization.k8s.io/v1/selfsubjectrulesreviews",
	"/apis/authentication.k8s.io/v1/tokenreviews", "/apis/authorization.k8s.io/v1/namespaces/wire/localsubjectaccessreviews",
}

func (m maker) request() random {
	r := random{Request: wire.Request{Method: m.method(), Host: m.host()}}
	path := m.path()
	r.Target = path + m.query(r.Method)
	if m.oneIn(60) {
		r.prefix = pick(m, "http://localhost", "https://elsewhere.example:1234", "ftp://x", "http:", "//")
	}
	m.identify(&r)
	m.negotiate(&r)
	m.decorate(&r)
	m.addBody(&r)
	return r
}

func (m maker) method() string {
	if m.oneIn(3) {
		return pick(m, http.MethodPost, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodPatch, http.MethodDelete)
	}
	if m.oneIn(6) {
		return pick(m, "HEAD", "OPTIONS", "TRACE", "CONNECT", "PROPFIND", "get", "Post", "LIST", "WATCH", "QUERY", "X!#$%&'*+-.^_`|~9", "PRI", "M-SEARCH")
	}
	return http.MethodGet
}

func (m maker) host() string {
	if !m.oneIn(8) {
		return ""
	}
	return pick(m, "kubernetes.default.svc", "elsewhere.example:1234", "UPPER.example", "[::1]:6443", "[fe80::1%25eth0]", "under_score", "10.0.0.1",
		"xn--bcher-kva.example", "trailing.dot.", "a:b:c", "bücher.example", "sp ace", "user@host", "%41", "-")
}

func (m maker) path() string {
	path := pick(m, pick(m, collections...), pick(m, collections...), pick(m, objects...), pick(m, objects...), pick(m, others...))
	if !m.oneIn(5) {
		return path
	}
	at := func() int { return m.IntN(len(path) + 1) }
	switch i := at(); m.IntN(14) {
	case 0:
		return path + "/"
	case 1:
		return "/" + path
	case 2:
		return path[:i] + "//" + path[i:]
	case 3:
		return strings.Replace(path, "/", "%2F", 1+m.IntN(3))
	case 4:
		return path + "%2fmore"
	case 5:
		return path[:i] + pick(m, "/./", "/../", "/%2e%2e/", "/..;/", "/%2e/") + path[i:]
	case 6:
		return path + pick(m, "%00", "%0a", "%0d%0aX-Injected:%20yes", "%ff", "%zz", "%", "%2", "\x7f", "\x01")
	case 7:
		return path + pick(m, "ü", "%C3%BC", "%c3%bc", "日本", "%E6%97%A5", "e\u0301")
	case 8:
		return path + strings.Repeat("a", 1+m.IntN(20000))
	case 9:
		return path + pick(m, ";a=b", ":verb", "@", "!$&'()*+,=~", "[]", "{}", "|", "\\", "^", "`", "\"<>")
	case 10:
		return strings.ReplaceAll(path, "a", "%61")
	case 11:
		return strings.ToUpper(path)
	case 12:
		return strings.TrimPrefix(path, "/")
	}
	return path + pick(m, "#fragment", "?", "??", "?&", "?=")
}

// query never lets a write through: dryRun is there and stays as it is.
func (m maker) query(method string) string {
	var parts []string
	if !slices.Contains([]string{http.MethodGet, http.MethodHead}, method) {
		parts = append(parts, "dryRun=All")
	}
	watch := strings.EqualFold(method, http.MethodGet) && m.oneIn(6)
	if watch {
		parts = append(parts, "timeoutSeconds=1", pick(m, "watch=1", "watch=true", "watch=T", "watch=yes", "watch", "watch=0&watch=1"))
	}
	for range m.IntN(4) {
		parts = append(parts, m.parameter())
	}
	if len(parts) == 0 {
		return ""
	}
	return "?" + strings.Join(parts, "&")
}

func (m maker) parameter() string {
	token := base64.RawURLEncoding.EncodeToString(fmt.Appendf(nil, `{"v":"meta.k8s.io/v1","rv":%d,"start":"cm-%02d\u0000"}`, pick(m, -1, 0, 1, 50, 1<<40), m.IntN(70)))
	return pick(m,
		"limit="+pick(m, "0", "1", "7", "500", "-1", "1e3", "99999999999999999999", "", "%31"),
		"continue="+pick(m, "", token, token, token+"=", "%00", "YWJj"),
		"resourceVersion="+pick(m, "", "0", "0", "1", "10", "100", "999999999", "-1", "abc", "%30"),
		"resourceVersion=0&resourceVersionMatch="+pick(m, "", "Exact", "NotOlderThan", "exact", "Other"),
		"resourceVersion="+pick(m, "5", "120", "9999999")+"&resourceVersionMatch="+pick(m, "Exact", "NotOlderThan"),
		"labelSelector="+pick(m, "half%3D1", "half=1", "half+in+(0,1)", "!half", "a%20b", "half%3d%3d0,unicode", "%%", "(", "half=1&labelSelector=half=0"),
		"fieldSelector="+pick(m, "metadata.name%3Dcm-03", "metadata.name=pod-0", "metadata.name!=cm-03", "spec.nodeName=", "status.phase=Pending", "none=1", "%3D"),
		"pretty="+pick(m, "1", "true", "0", "", "x"),
		"timeout="+pick(m, "1s", "5m", "abc", "-1s", "10h", "0"),
		"allowWatchBookmarks="+pick(m, "true", "false", "1", "x"),
		"sendInitialEvents="+pick(m, "true", "false", "x")+"&resourceVersionMatch=NotOlderThan",
		"includeObject="+pick(m, "None", "Metadata", "Object", "none"),
		"fieldManager="+pick(m, "me", "", "%C3%BC", strings.Repeat("x", 200))+pick(m, "", "&force=true", "&force=x"),
		"fieldValidation="+pick(m, "Strict", "Warn", "Ignore", "Other"),
		"propagationPolicy="+pick(m, "Foreground", "Orphan", "Background", "None"),
		"gracePeriodSeconds="+pick(m, "0", "30", "-1", "x"),
		"container=main&tailLines=1", "stdin=true&command=sh", "verbose", "exclude=etcd", "exact=true", "timeoutSeconds=1", "export=true",
		"a=1;b=2", "a;b", "%zz=1", "a=%zz", "a=%", "=", "==", "&&", "+=+", "a[]=1", "unknown=1&unknown=2", "a=%00", "a=ü", "a=b%26c", "A="+strings.Repeat("x", m.IntN(9000)),
	)
}

func (m maker) identify(r *random) {
	token := cp.Token("admin").Token
	switch {
	case !m.oneIn(6):
		r.add("Authorization", "Bearer "+token)
	case m.oneIn(3):
		r.add("Authorization", "Bearer "+cp.Token(reader).Token)
	case m.oneIn(3):
		r.add("Authorization", "Bearer "+token)
		r.add("Impersonate-User", pick(m, reader, "nobody", ""))
		r.add(pick(m, "Impersonate-Group", "Impersonate-Uid", "Impersonate-Extra-Scopes", "Impersonate-Extra-A%2fb", "Impersonate-None"), pick(m, "devs", "system:masters", ""))
	default:
		r.add("Authorization", pick(m, "Bearer "+cp.Token(poor).Token, "Bearer wrong", "Bearer", "bearer "+token, "BEARER "+token, "Bearer  "+token, "Bearer "+token+" x",
			"Basic YTpi", "Basic", "Digest x", "", " ", token, "Bearer "+token+","+token, "Bearer\t"+token))
	}
}

var mediaTypes = []string{
	"application/json", "application/json", "application/yaml", "application/vnd.kubernetes.protobuf", "application/vnd.kubernetes.protobuf", "application/cbor",
	"application/json;as=Table;g=meta.k8s.io;v=v1", "application/vnd.kubernetes.protobuf;as=Table;g=meta.k8s.io;v=v1", "application/cbor;as=Table;g=meta.k8s.io;v=v1",
	"application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1", "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1",
	"application/vnd.kubernetes.protobuf;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1",
	"application/json;as=Table;g=meta.k8s.io;v=v1,application/json;as=Table;g=meta.k8s.io;v=v1beta1,application/json",
	"application/json;as=Nonsense;g=meta.k8s.io;v=v1", "application/json;stream=watch", "application/vnd.kubernetes.protobuf;stream=watch", "application/cbor-seq",
	"application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList", "application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList,application/json",
	"application/vnd.kubernetes.protobuf;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList", "application/com.github.proto-openapi.spec.v3@v1.0+protobuf",
	"*/*", "text/html", "text/plain", "application/*", "image/png", "nonsense", ";;;", "", "application/json;q=0.1,application/yaml;q=0.9", "application/json;pretty=1",
}

func (m maker) negotiate(r *random) {
	for range pick(m, 0, 1, 1, 1, 2) {
		r.add("Accept", pick(m, mediaTypes...))
	}
	if m.oneIn(2) {
		r.add("Accept-Encoding", pick(m, "gzip", "gzip", "gzip", "identity", "gzip;q=0", "gzip, deflate, br", "deflate", "*", "", "GZIP"))
	}
	if m.oneIn(10) {
		r.add("If-None-Match", pick(m, `"x"`, `W/"x"`, "*", "x", `"A", "B"`))
	}
	if m.oneIn(20) {
		r.add(pick(m, "If-Match", "If-Modified-Since", "If-Unmodified-Since", "If-Range"), pick(m, "*", "x", "Mon, 02 Jan 2040 15:04:05 GMT"))
	}
	if m.oneIn(20) {
		r.add("Range", pick(m, "bytes=0-10", "bytes=5-", "bytes=-5", "bytes=9-1", "x"))
	}
}

func (m maker) decorate(r *random) {
	for range pick(m, 0, 0, 1, 2, 3) {
		f := m.field()
		r.add(f.Name, f.Value)
	}
	if m.oneIn(80) {
		r.add("X-Big", strings.Repeat("x", pick(m, 10_000, 100_000, 500_000, 900_000, 1_020_000, 1_100_000)))
	}
	if m.oneIn(80) {
		for i := range pick(m, 50, 500, 3000) {
			r.add(fmt.Sprintf("X-Many-%d", i%1000), "y")
		}
	}
	m.Shuffle(len(r.Header), func(i, j int) { r.Header[i], r.Header[j] = r.Header[j], r.Header[i] })
}

func (m maker) field() wire.Field {
	return pick(m,
		wire.Field{Name: "User-Agent", Value: pick(m, "", "kubectl/v1", "a/b (c)", "ü")},
		wire.Field{Name: "Audit-ID", Value: pick(m, "mine", "", strings.Repeat("x", 100), "a b")},
		wire.Field{Name: pick(m, "X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto", "X-Forwarded-Port", "X-Forwarded-Uri", "Forwarded", "X-Real-Ip", "Via"),
			Value: pick(m, "10.1.2.3", "10.1.2.3, 10.4.5.6", "unknown", "for=x", "::1", "")},
		wire.Field{Name: pick(m, "X-Remote-User", "X-Remote-Group", "X-Remote-Extra-A", "X-Remote-Uid"), Value: pick(m, "admin", "system:masters", "")},
		wire.Field{Name: pick(m, "Origin", "Referer", "Cookie", "Cookie", "Dnt", "Upgrade-Insecure-Requests", "Priority", "Prefer"), Value: pick(m, "https://x.example", "a=b", "a=b; c=d", "1", "u=1")},
		wire.Field{Name: pick(m, "Connection", "Keep-Alive", "Proxy-Connection", "Upgrade"), Value: pick(m, "keep-alive", "close", "x", "timeout=5", "X-Foo", "Upgrade")},
		wire.Field{Name: "TE", Value: pick(m, "trailers", "deflate", "trailers, deflate;q=0.5", "")},
		wire.Field{Name: pick(m, "Traceparent", "Tracestate", "Baggage", "X-Request-Id", "X-B3-Traceid"), Value: pick(m, "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "x", "a=b")},
		wire.Field{Name: pick(m, "X-HTTP-Method-Override", "X-Method-Override", "X-Stream-Protocol-Version", "Max-Forwards", "Proxy-Authorization", "Authorization"), Value: pick(m, "DELETE", "v4.channel.k8s.io", "0", "Basic YTpi")},
		wire.Field{Name: "Sec-WebSocket-Protocol", Value: pick(m, "base64url.bearer.authorization.k8s.io.d3Jvbmc, v4.channel.k8s.io", "v4.channel.k8s.io", "")},
		wire.Field{Name: pick(m, "X-Empty", "X-Odd!#$%&'*+.^_`|~", "X_Under", "x-lower", "Content-Language", "Content-Location"), Value: pick(m, "", "  padded  ", "tab\there", "ü", "\xff", "a,b", "\"q\"")},
		wire.Field{Name: "Expect", Value: pick(m, "100-continue", "100-Continue", "other", "")},
		wire.Field{Name: "Content-Type", Value: pick(m, mediaTypes...)},
		wire.Field{Name: "Content-Encoding", Value: pick(m, "gzip", "identity", "x")},
	)
}

// bodies by method; the last ones fit any. A body of DELETE takes the place of
// the query, so it says itself that it is a dry run, or cannot be read.
var (
	configMap    = `{"kind":"ConfigMap","apiVersion":"v1","metadata":{"name":"%s"},"data":{"text":"new"},"unknown":1}`
	gadget       = `{"kind":"Gadget","apiVersion":"wire.example.com/v1","metadata":{"name":"%s"},"spec":{"size":"5"}}`
	deletion     = `{"kind":"DeleteOptions","apiVersion":"v1","dryRun":["All"],"propagationPolicy":"Background"}`
	applied      = "kind: ConfigMap\napiVersion: v1\nmetadata:\n  name: cm-03\ndata:\n  applied: \"yes\"\n"
	mergePatch   = `{"metadata":{"labels":{"new":"yes"}}}`
	jsonPatch    = `[{"op":"add","path":"/metadata/labels/new","value":"yes"}]`
	broken       = `{"kind":"ConfigMap","apiVersion":`
	wrongKind    = `{"kind":"Secret","apiVersion":"v1","metadata":{"name":"cm-03"}}`
	review       = `{"kind":"SelfSubjectReview","apiVersion":"authentication.k8s.io/v1"}`
	accessReview = `{"kind":"SelfSubjectAccessReview","apiVersion":"authorization.k8s.io/v1","spec":{"resourceAttributes":{"verb":"get","resource":"pods"}}}`
)

var patchTypes = []string{"application/merge-patch+json", "application/json-patch+json", "application/strategic-merge-patch+json", "application/apply-patch+yaml", "application/apply-patch+cbor", "application/json", ""}

func (m maker) addBody(r *random) {
	text, contentType := "", "application/json"
	switch r.Method {
	case http.MethodPost, http.MethodPut, "Post":
		text = pick(m, fmt.Sprintf(configMap, "cm-new"), fmt.Sprintf(configMap, "cm-03"), fmt.Sprintf(gadget, "gadget-0"), applied, review, accessReview, broken, wrongKind, "null", "\x00", "k8s\x00junk", "\xd9\xd9\xf7junk", "")
		if text == applied {
			contentType = "application/yaml"
		}
	case http.MethodPatch:
		text, contentType = pick(m, mergePatch, jsonPatch, applied, broken, "[]", "null", ""), pick(m, patchTypes...)
	case http.MethodDelete:
		text = pick(m, "", "", deletion, broken, "[1]", wrongKind)
	default:
		if !m.oneIn(12) {
			return
		}
		text = pick(m, mergePatch, "x")
	}
	if m.oneIn(6) {
		contentType = pick(m, append(mediaTypes, patchTypes...)...)
	}
	if m.oneIn(30) && r.Method != http.MethodDelete {
		text = fmt.Sprintf(`{"kind":"ConfigMap","apiVersion":"v1","metadata":{"name":"cm-03"},"data":{"big":"%s"}}`, strings.Repeat("x", pick(m, 100<<10, 1<<20, 2<<20, 3<<20)))
	}
	r.Body = []byte(text)
	if m.oneIn(15) {
		var b bytes.Buffer
		w := gzip.NewWriter(&b)
		_, _ = w.Write(r.Body)
		w.Close()
		r.Body = b.Bytes()
		r.add("Content-Encoding", "gzip")
	}
	if contentType != "" || m.oneIn(2) {
		r.add("Content-Type", contentType)
	}
	m.frame(r)
}

// frame chooses how the body travels.
func (m maker) frame(r *random) {
	switch {
	case m.oneIn(5):
		r.Chunked = true
		if m.oneIn(3) {
			r.Trailer = []wire.Field{{Name: "X-Trailer", Value: "t"}}
			r.add("Trailer", "X-Trailer")
		}
	case m.oneIn(40):
		length := max(0, len(r.Body)-1)
		r.Length = &length
	}
	if m.oneIn(15) {
		r.add("Expect", "100-continue")
	}
}

func (r *random) add(name, value string) {
	r.Header = append(r.Header, wire.Field{Name: name, Value: value})
}

// fitHTTP1 makes the target what only HTTP/1.1 lets it be.
func (r random) fitHTTP1() random {
	if strings.HasPrefix(r.Target, "/") {
		r.Target = r.prefix + r.Target
	}
	return r
}

// fitHTTP2 leaves out what only HTTP/1.1 has (RFC 9113 section 8.2.2), so that
// more than the refusal of it is compared.
func (r random) fitHTTP2() random {
	r.Header = slices.DeleteFunc(r.Header, func(f wire.Field) bool {
		return slices.Contains([]string{"Connection", "Keep-Alive", "Proxy-Connection", "Upgrade"}, f.Name)
	})
	r.Length = nil
	if r.Method == http.MethodConnect {
		r.Body, r.Chunked, r.Length, r.Trailer = nil, false, nil, nil
	}
	return r
}
