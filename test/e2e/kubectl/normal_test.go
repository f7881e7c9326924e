package kubectl

import (
	"regexp"
	"strings"
)

// differences are all that may differ between two runs of a command: what the
// API server makes up or what tells the time.
var differences = []struct {
	pattern *regexp.Regexp
	instead string
}{
	{regexp.MustCompile(`\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(\.\d+)?(Z| [+-]\d{4})`), "TIME"},
	{regexp.MustCompile(`\w{3}, \d\d \w{3} \d{4} \d\d:\d\d:\d\d [+-]\d{4}`), "TIME"},
	// What a watch says that a deadline ends: whether it had lasted a second.
	{regexp.MustCompile(`(?m)^I\d{4} .*\bvery short watch: .*\n`), ""},
	{regexp.MustCompile(`(?m)^([EIW])\d{4} \d\d:\d\d:\d\d\.\d+ +\d+ `), "${1} "}, // klog's head
	// Ages stand in columns.
	{regexp.MustCompile(`(?m)(^|[\t ]{2,}|over )(\d+[smh]){1,2}\b`), "${1}AGE"},
	{regexp.MustCompile(`[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}`), "UID"},
	{regexp.MustCompile(`((?:resourceVersion"?: ?"?|Resource Version: +))\d+`), "${1}RV"},
	// It holds a resourceVersion.
	{regexp.MustCompile(`("continue": ?")[^"]+`), "${1}TOKEN"},
	// Pods of Deployments: the hash is that of the template, the rest random.
	{regexp.MustCompile(`\b(web-[bcdfghjklmnpqrstvwxz2456789]{6,10})-[bcdfghjklmnpqrstvwxz2456789]{5}\b`), "${1}-POD"},
	{regexp.MustCompile(`\bkube-api-access-[bcdfghjklmnpqrstvwxz2456789]{5}\b`), "kube-api-access-N"},
	// Events are named after the time.
	{regexp.MustCompile(`\bweb\.[0-9a-f]{16}\b`), "web.EVENT"},
	{regexp.MustCompile(`\b10\.244\.\d+\.\d+\b`), "POD-IP"},
	{regexp.MustCompile(`\b10\.(9[6-9]|10\d|11[01])\.\d+\.\d+\b`), "CLUSTER-IP"},
	// Temporary files of diff and edit.
	{regexp.MustCompile(`/tmp/((LIVE|MERGED)-|kubectl-edit-)\d+`), "/tmp/${1}N"},
	// The near end of what kubectl listens on.
	{regexp.MustCompile(`\b(127\.0\.0\.1:|\[::1\]:|Handling connection for )\d+`), "${1}PORT"},
	// The width of a column is that of its widest cell.
	{regexp.MustCompile(`(\S) {2,}`), "${1}  "},
}

// long is how many bytes are not looked through: that takes minutes with the
// race detector.
const long = 64 << 10

// normal takes out of a command's output what differs between any two runs.
func (s *side) normal(text string) string {
	text = strings.ReplaceAll(text, s.server(), "https://SERVER")
	text = strings.ReplaceAll(text, strings.TrimPrefix(s.server(), "https://"), "SERVER")
	text = strings.ReplaceAll(text, s.namespace, "shop")
	if len(text) > long {
		return text // documents and bulk have no times in them
	}
	for _, d := range differences {
		text = d.pattern.ReplaceAllString(text, d.instead)
	}
	return text
}
