package house

import (
	"path"
	"regexp"
	"slices"
	"strings"
)

var metricsTold = rule{
	name: "metrics-are-told",
	why:  "an operator can alert on no metric that he does not know of, and waits in vain for one that is gone",
	check: func(t *tree) (found []finding) {
		exist, told := t.named(quotedMetric), t.told(metric)
		groups := map[string]bool{}
		for _, name := range keys(exist) {
			groups[groupOf(name)] = true
			if told[name] == "" {
				found = append(found, finding{exist[name], "metric " + name + " is in no document"})
			}
		}
		for _, name := range keys(told) {
			// Other names begin like that as well: what modules import, in C.
			if groups[groupOf(name)] && exist[name] == "" && exist[histogram.ReplaceAllString(name, "")] == "" {
				found = append(found, finding{told[name], "there is no metric " + name})
			}
		}
		return found
	},
	broken: map[string]files{
		"core/cache/cache.go": {"core/cache/cache.go": goFile("Package cache answers reads.") + "\nconst asked = \"portico_asked_total\"\n"},
		"docs/a.md": {
			"core/cache/cache.go": goFile("Package cache answers reads.") + "\nconst asked = \"portico_asked_seconds\"\n",
			"docs/a.md":           "Look at `portico_asked_seconds`, `portico_asked_seconds_count` and portico_asked_total.\n",
		},
	},
}

var flagsExist = rule{
	name: "flags-exist",
	why:  "who copies a flag from a page wants it to be taken",
	check: func(t *tree) (found []finding) {
		exist, told := t.named(quotedFlag), t.told(spannedFlag)
		for _, name := range keys(told) {
			if exist[name] == "" && !t.excuse(told[name]+":--"+name) {
				found = append(found, finding{told[name], "there is no flag --" + name})
			}
		}
		return found
	},
	broken: map[string]files{"docs/a.md": {"docs/a.md": "Give it `--more-of-it=1`.\n"}},
}

var (
	metric       = regexp.MustCompile(`\b(portico_[a-z_]*[a-z])\b`)
	quotedMetric = regexp.MustCompile(`"(portico_[a-z_]+)"`)
	histogram    = regexp.MustCompile(`_(count|sum|bucket)$`)
	spannedFlag  = regexp.MustCompile("`--([a-z][a-z0-9-]+)")
	quotedFlag   = regexp.MustCompile(`"([a-z][a-z0-9-]+)"`)
)

// groupOf is the first word of a metric's name.
func groupOf(name string) string { return strings.SplitN(name, "_", 3)[1] }

// named returns what form finds in the code, each with a file that has it.
func (t *tree) named(form *regexp.Regexp) map[string]string {
	return t.find(form, func(p string) bool {
		return path.Ext(p) == ".go" && !strings.HasSuffix(p, "_test.go") && slices.Contains([]string{"cmd", "core", "filters", "bpf"}, strings.SplitN(p, "/", 2)[0])
	})
}

// told returns what form finds in the documents, each with one that has it.
func (t *tree) told(form *regexp.Regexp) map[string]string {
	return t.find(form, func(p string) bool { return path.Ext(p) == ".md" })
}

func (t *tree) find(form *regexp.Regexp, in func(path string) bool) map[string]string {
	found := map[string]string{}
	for _, p := range keys(t.files) {
		if !in(p) {
			continue
		}
		for _, match := range form.FindAllStringSubmatch(t.files[p], -1) {
			found[match[1]] = p
		}
	}
	return found
}
