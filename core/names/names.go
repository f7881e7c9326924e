// Package names gives a tenant's namespaces names of his own: what he asks for by
// them is asked for by the cluster's, and what is answered by the cluster's names
// is answered by his.
package names

import (
	"context"
	"maps"
	"slices"
	"strings"

	"github.com/portico-proxy/portico/crds/proxy/v1alpha1"
)

// A Mapping says what a tenant calls the namespaces of the cluster. It is
// injective in both directions: no two names of his are one namespace, and none has two
// names. It never changes.
type Mapping struct {
	prefix string
	// Names that are told one by one, both ways.
	cluster, virtual map[string]string
	key              string
	memo             *memo
}

// New returns the mapping by which prefix stands before the tenant's names, but for
// those in renamed, which are the tenant's with the cluster's.
func New(prefix string, renamed map[string]string) *Mapping {
	m := &Mapping{prefix: prefix, cluster: maps.Clone(renamed), virtual: map[string]string{}, memo: &memo{}}
	parts := []string{prefix}
	for _, own := range slices.Sorted(maps.Keys(renamed)) {
		m.virtual[renamed[own]] = own
		parts = append(parts, own, renamed[own])
	}
	m.key = strings.Join(parts, " ")
	return m
}

// Of is the mapping of a view that gives namespaces other names, and nil of others.
func Of(n *v1alpha1.ViewNamespaces) *Mapping {
	if !n.Renames() {
		return nil
	}
	renamed := map[string]string{}
	for _, r := range n.Renamed {
		renamed[r.Name] = r.Cluster
	}
	return New(n.Prefix, renamed)
}

// Key is equal for mappings that map alike.
func (m *Mapping) Key() string {
	if m == nil {
		return ""
	}
	return m.key
}

// noNamespace begins what stands for names of the tenant's that no namespace can
// have. Namespaces' names do not begin so.
const noNamespace = "_"

// Cluster is the cluster's name of what the tenant calls own. What nothing can be
// called by it, as another has it, gets a name that no namespace has.
func (m *Mapping) Cluster(own string) string {
	if own == "" {
		return ""
	}
	if name, ok := m.cluster[own]; ok {
		return name
	}
	if _, taken := m.virtual[m.prefix+own]; taken {
		return noNamespace + own
	}
	return m.prefix + own
}

// Virtual is the tenant's name of what the cluster calls name, if he has one.
func (m *Mapping) Virtual(name string) (own string, ok bool) {
	if name == "" {
		return "", true
	}
	if own, ok = m.own(name); ok {
		return own, true
	}
	own, ok = strings.CutPrefix(name, noNamespace)
	return own, ok && m.Cluster(own) == name
}

// own is Virtual of what can be a namespace.
func (m *Mapping) own(name string) (string, bool) {
	if own, ok := m.virtual[name]; ok {
		return own, true
	}
	own, ok := strings.CutPrefix(name, m.prefix)
	if _, other := m.cluster[own]; !ok || other || own == "" || strings.HasPrefix(name, noNamespace) {
		return "", false
	}
	return own, true
}

// Has reports whether a namespace of the cluster's has a name of the tenant's.
func (m *Mapping) Has(name string) bool {
	_, ok := m.own(name)
	return ok
}

// Chooses reports whether a namespace is one that the mapping is told of: it begins
// with the prefix or was renamed.
func (m *Mapping) Chooses(name string) bool {
	_, renamed := m.virtual[name]
	return renamed || m.prefix != "" && m.Has(name)
}

// Text is a text with the tenant's names for the cluster's, wherever one stands as a
// word. It is for what people read, and nothing else.
func (m *Mapping) Text(text string) string {
	if !m.mentions(text) && !strings.Contains(text, noNamespace) {
		return text
	}
	var out strings.Builder
	for text != "" {
		between, word, rest := nextWord(text)
		// What stands for no namespace is a word with its mark before it.
		if own, marked := strings.CutSuffix(between, noNamespace); marked && word != "" && m.Cluster(word) == noNamespace+word {
			between = own
		} else {
			word = m.word(word)
		}
		out.WriteString(between)
		out.WriteString(word)
		text = rest
	}
	return out.String()
}

// nextWord cuts a text after its first word: of what names of namespaces are made
// of, and not the letter of an escape such as \n.
func nextWord(text string) (between, word, rest string) {
	begin := 0
	for begin < len(text) && !isOfWord(text[begin]) {
		if text[begin] == '\\' {
			begin++
		}
		begin++
	}
	begin = min(begin, len(text))
	end := begin
	for end < len(text) && isOfWord(text[end]) {
		end++
	}
	return text[:begin], text[begin:end], text[end:]
}

func isOfWord(c byte) bool {
	return c == '-' || c >= '0' && c <= '9' || c >= 'a' && c <= 'z'
}

// word is what is shown of a word: a prefix is not, whatever comes after it.
func (m *Mapping) word(word string) string {
	if own, ok := m.virtual[word]; ok {
		return own
	}
	if m.prefix == "" {
		return word
	}
	return strings.TrimPrefix(word, m.prefix)
}

// mentions reports whether a text may name a namespace by the cluster's name.
func (m *Mapping) mentions(text string) bool {
	if m.prefix != "" && strings.Contains(text, m.prefix) {
		return true
	}
	for name := range m.virtual {
		if strings.Contains(text, name) {
			return true
		}
	}
	return false
}

type mappingKey struct{}

// With says that a request has been mapped by m.
func With(ctx context.Context, m *Mapping) context.Context {
	return context.WithValue(ctx, mappingKey{}, m)
}

// From is what a request has been mapped by; nil is nothing.
func From(ctx context.Context) *Mapping {
	m, _ := ctx.Value(mappingKey{}).(*Mapping)
	return m
}
