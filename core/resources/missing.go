package resources

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// missing says which of the names stand for nothing that the API server has.
func (k *known) missing(names []name) (wrong []string) {
	for _, n := range names {
		switch why := k.why(n); {
		case why == "":
		case len(wrong) == maxSaid:
			return append(wrong, "and there is more")
		default:
			wrong = append(wrong, why)
		}
	}
	return wrong
}

func text(wrong []string) string {
	return strings.Join(wrong, "; ") + ". The policy is in force, but what it says of that has no effect until there is such a resource."
}

// why says what is wrong with a name; "" if nothing is, or it is not known.
func (k *known) why(n name) string {
	first, sub, _ := strings.Cut(n.resource, "/")
	if n.group == "*" {
		if first == "*" || k.inAny(first, sub) || k.isStale() {
			return ""
		}
		return k.say(n, "in any group")
	}
	g := k.groups[n.group]
	switch {
	case g == nil && k.isStale():
		return ""
	case g == nil:
		return fmt.Sprintf("%s: the API server has no group %q%s", n.at.Child("group"), n.group, k.elsewhere(first))
	case g.stale || first == "*" || g.has(first, sub):
		return ""
	}
	return k.say(n, fmt.Sprintf("in group %q", n.group))
}

func (k *known) inAny(first, sub string) bool {
	for _, g := range k.groups {
		if g.has(first, sub) {
			return true
		}
	}
	return false
}

// isStale reports whether there may be more than is known.
func (k *known) isStale() bool {
	for _, g := range k.groups {
		if g.stale {
			return true
		}
	}
	return false
}

func (g *group) has(first, sub string) bool {
	r := g.resources[first]
	return r != nil && (sub == "" || sub == "*" || r.subresources[sub])
}

func (k *known) say(n name, where string) string {
	first, sub, _ := strings.Cut(n.resource, "/")
	hint := k.hint(n.group, first, sub)
	return fmt.Sprintf("%s: the API server has no resource %q %s%s", n.at.Child("resource"), n.resource, where, hint)
}

// hint guesses what is meant.
func (k *known) hint(in, first, sub string) string {
	for _, name := range k.names(in) {
		g := k.groups[name]
		if r := g.resources[first]; r != nil {
			return fmt.Sprintf("; its subresources are %s", list(r.subresources))
		}
		if meant := g.guess(first); meant != "" {
			if sub != "" {
				meant += "/" + sub
			}
			return fmt.Sprintf("; did you mean %q?", meant)
		}
	}
	return k.elsewhere(first)
}

// elsewhere says in which other group there is such a resource.
func (k *known) elsewhere(first string) string {
	for _, name := range slices.Sorted(maps.Keys(k.groups)) {
		if meant := k.groups[name].called(first); meant != "" {
			return fmt.Sprintf("; did you mean %q of group %q?", meant, name)
		}
	}
	return ""
}

// names are the groups to look in.
func (k *known) names(in string) []string {
	if in == "*" {
		return slices.Sorted(maps.Keys(k.groups))
	}
	return []string{in}
}

// called is the resource that somebody calls so; "" if there is none.
func (g *group) called(name string) string {
	for _, plural := range slices.Sorted(maps.Keys(g.resources)) {
		if plural == name || slices.Contains(g.resources[plural].called, strings.ToLower(name)) {
			return plural
		}
	}
	return ""
}

// guess is the resource that is called so, or nearly.
func (g *group) guess(name string) string {
	if plural := g.called(name); plural != "" {
		return plural
	}
	best, least := "", 3
	for _, plural := range slices.Sorted(maps.Keys(g.resources)) {
		if d := distance(name, plural); d < least && d < len(name)/2 {
			best, least = plural, d
		}
	}
	return best
}

// distance is how many letters have to be put in, left out or changed to make b
// of a.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		before := row[0]
		row[0] = i + 1
		for j := range len(b) {
			here := before
			if a[i] != b[j] {
				here = 1 + min(before, row[j], row[j+1])
			}
			before, row[j+1] = row[j+1], here
		}
	}
	return row[len(b)]
}

func list(set map[string]bool) string {
	if len(set) == 0 {
		return "none"
	}
	return strings.Join(slices.Sorted(maps.Keys(set)), ", ")
}
