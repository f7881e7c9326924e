package house

import (
	"fmt"
	"net/url"
	"path"
	"regexp"
	"slices"
	"strings"
)

var topLevel = rule{
	name: "top-level",
	why:  "a newcomer sees all rooms at once, and what is for what",
	check: func(t *tree) (found []finding) {
		seen := map[string]bool{}
		for _, p := range keys(t.files) {
			top, _, isDir := strings.Cut(p, "/")
			if !seen[top] && !belongsOnTop(top, isDir) {
				found = append(found, finding{top, "does not belong at the top: put it in one of " + strings.Join(rooms, ", ")})
			}
			seen[top] = true
		}
		for _, room := range rooms {
			if !seen[room] {
				found = append(found, finding{room, "is missing"})
			}
		}
		return found
	},
	broken: map[string]files{
		"bpf":      {"bpf/redirect.go": gone},
		"pkg":      {"pkg/cache/cache.go": goFile("Package cache is lost.")},
		"notes":    {"notes": ""},
		"build.sh": {"build.sh": ""},
	},
}

func belongsOnTop(name string, isDir bool) bool {
	if strings.HasPrefix(name, ".") {
		return true
	}
	if isDir {
		return name == "docs" || slices.Contains(rooms, name)
	}
	return slices.Contains([]string{"go.mod", "go.sum", "Makefile", "LICENSE"}, name) || path.Ext(name) == ".md"
}

// chapters are what the README of a filter answers, in this order.
var chapters = []string{"Name", "Description", "Configuration", "Examples", "Metrics", "Refuses when"}

var filterReadme = rule{
	name: "filter-readme",
	why:  "who meets a filter in a trace wants the same questions answered for each",
	check: func(t *tree) (found []finding) {
		order := strings.Join(chapters, ", ")
		for _, dir := range t.filters() {
			readme := dir + "/README.md"
			rest := headings(t.files[readme])
			for _, chapter := range chapters {
				i := slices.Index(rest, chapter)
				if i < 0 {
					found = append(found, finding{readme, fmt.Sprintf("has no section %q, or not where it belongs: %s", chapter, order)})
					break
				}
				rest = rest[i+1:]
			}
		}
		return found
	},
	broken: map[string]files{
		"filters/throttle/README.md": {"filters/throttle/filter.go": goFile("Package throttle slows.")},
		"filters/authn/README.md":    {"filters/authn/README.md": "## Description\n\n## Name\n"},
	},
}

var filterInChain = rule{
	name: "filter-in-chain",
	why:  "filters/chain.go is the whole path of a request; what is not in it does not run",
	check: func(t *tree) (found []finding) {
		for _, dir := range t.filters() {
			if !strings.Contains(t.files["filters/chain.go"], `"`+module+"/"+dir+`"`) {
				found = append(found, finding{dir, "is not named in filters/chain.go"})
			}
		}
		return found
	},
	broken: map[string]files{
		"filters/throttle": {"filters/throttle/filter.go": goFile("Package throttle slows.")},
	},
}

// filters returns the directories that hold a filter.
func (t *tree) filters() []string {
	var dirs []string
	for _, name := range t.children("filters") {
		dir := "filters/" + name
		if slices.ContainsFunc(t.sources, func(s *source) bool { return s.dir == dir && !s.test }) {
			dirs = append(dirs, dir)
		}
	}
	return dirs
}

var exampleTested = rule{
	name: "examples-are-tested",
	why:  "an example that nothing runs is wrong sooner or later",
	check: func(t *tree) (found []finding) {
		for _, name := range t.children("examples") {
			dir := "examples/" + name
			if !t.exists(dir + "/README.md") {
				found = append(found, finding{dir, "has no README.md"})
			}
			if !slices.ContainsFunc(t.sources, func(s *source) bool { return s.tests(dir) }) {
				found = append(found, finding{dir, "is named by no test: run it in one"})
			}
		}
		return found
	},
	broken: map[string]files{
		"examples/mute":   {"examples/mute/mute_test.go": goFile("Package mute tests itself.")},
		"examples/unseen": {"examples/unseen/README.md": "# unseen\n"},
	},
}

// tests says whether a file is a test that lies in dir or names it.
func (s *source) tests(dir string) bool {
	named := regexp.MustCompile(regexp.QuoteMeta(dir) + `\b`)
	return s.test && s.dir != "test/house" && (within(s.dir, dir) || named.MatchString(s.text))
}

var links = rule{
	name: "links",
	why:  "a page that points nowhere was not read by who changed it",
	check: func(t *tree) (found []finding) {
		for _, p := range keys(t.files) {
			if path.Ext(p) != ".md" || strings.Contains("/"+p, "/testdata/") {
				continue
			}
			for _, target := range linksIn(t.files[p]) {
				if !t.leads(p, target) {
					found = append(found, finding{p, "there is nothing at " + target})
				}
			}
		}
		return found
	},
	broken: map[string]files{
		"docs/a.md": {"docs/a.md": "See [b](b.md).\n"},
		"docs/c.md": {"docs/c.md": "See [the start][1].\n\n[1]: ../README.md#no-such-heading\n"},
		"docs/d.md": {"docs/d.md": "See [out](../../elsewhere/README.md).\n"},
	},
}

var namedTests = rule{
	name: "named-tests",
	why:  "a page that says which test keeps a promise must not outlive that test",
	check: func(t *tree) (found []finding) {
		exist := map[string]bool{}
		for _, p := range keys(t.files) {
			if strings.HasSuffix(p, "_test.go") {
				for _, match := range testFunction.FindAllStringSubmatch(t.files[p], -1) {
					exist[match[1]] = true
				}
			}
		}
		for _, p := range keys(t.files) {
			if path.Ext(p) != ".md" {
				continue
			}
			for _, match := range testNamed.FindAllStringSubmatch(t.files[p], -1) {
				if !exist[match[1]] {
					found = append(found, finding{p, "there is no test " + match[1]})
				}
			}
		}
		return found
	},
	broken: map[string]files{"docs/a.md": {"docs/a.md": "It is kept by `TestThatIsGone`.\n"}},
}

var (
	testFunction = regexp.MustCompile(`(?m)^func (Test\w+)\(`)
	testNamed    = regexp.MustCompile("`(Test[A-Z]\\w+)`")

	fence     = regexp.MustCompile("(?ms)^ *```.*?^ *```")
	codeSpan  = regexp.MustCompile("`[^`\n]*`")
	inline    = regexp.MustCompile(`\]\(\s*<?([^)\s>]+)`)
	reference = regexp.MustCompile(`(?m)^ {0,3}\[[^\]]+\]:\s*<?([^\s>]+)`)
	heading   = regexp.MustCompile(`(?m)^#+ +(.*?)[ #]*$`)
	unslugged = regexp.MustCompile(`[^\p{L}\p{N}_ -]`)
)

// linksIn returns the targets of the links of a Markdown text that lead to
// somewhere in the repository.
func linksIn(text string) []string {
	text = codeSpan.ReplaceAllString(fence.ReplaceAllString(text, ""), "")
	var targets []string
	for _, form := range []*regexp.Regexp{inline, reference} {
		for _, match := range form.FindAllStringSubmatch(text, -1) {
			if u, err := url.Parse(match[1]); err != nil || u.Scheme == "" {
				targets = append(targets, match[1])
			}
		}
	}
	return targets
}

// headings returns the headings of a Markdown text.
func headings(text string) []string {
	var all []string
	for _, match := range heading.FindAllStringSubmatch(fence.ReplaceAllString(text, ""), -1) {
		all = append(all, match[1])
	}
	return all
}

// leads says whether a link on page leads to a file, a directory or a heading.
func (t *tree) leads(page, target string) bool {
	u, err := url.Parse(target)
	if err != nil {
		return false
	}
	to := page
	switch {
	case strings.HasPrefix(u.Path, "/"):
		to = strings.Trim(u.Path, "/")
	case u.Path != "":
		to = path.Join(path.Dir(page), u.Path)
	}
	if !t.exists(to) || u.Fragment == "" || path.Ext(to) != ".md" {
		return t.exists(to)
	}
	return slices.ContainsFunc(headings(t.files[to]), func(h string) bool { return slug(h) == u.Fragment })
}

// slug is the name that a heading gets in a link.
func slug(heading string) string {
	plain := unslugged.ReplaceAllString(strings.ToLower(heading), "")
	return strings.ReplaceAll(plain, " ", "-")
}
