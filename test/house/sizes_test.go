package house

import (
	"fmt"
	"go/ast"
	"go/scanner"
	"go/token"
	"strings"
)

// Sizes beyond which a thing does not fit into a head, and the laxer ones for
// tests, which are read one case at a time.
const (
	maxFunction     = 100
	maxTestFunction = 150
	maxFile         = 500
	maxTestFile     = 800
	maxParameters   = 6
	maxPipeline     = 200
)

var functionSize = rule{
	name: "function-size",
	why:  "aim at fifteen lines; past a hundred nobody knows what a function does",
	check: func(t *tree) []finding {
		return eachFunction(t, func(s *source, f *ast.FuncDecl) string {
			if n, limit := s.lines(f.Pos(), f.End()), s.limit(maxFunction, maxTestFunction); n > limit {
				return fmt.Sprintf("has %d lines, at most %d are allowed", n, limit)
			}
			return ""
		})
	},
	broken: map[string]files{
		"core/cache/all.go:Store.All":    {"core/cache/all.go": "package cache\n\nfunc (s *Store[T]) All() {" + strings.Repeat("\n", 100) + "}\n"},
		"core/cache/all_test.go:TestAll": {"core/cache/all_test.go": "package cache\n\nfunc TestAll() {" + strings.Repeat("\n", 150) + "}\n"},
	},
}

var parameterCount = rule{
	name: "parameter-count",
	why:  "from the fifth parameter on a struct says at the call what each value is",
	check: func(t *tree) []finding {
		return eachFunction(t, func(_ *source, f *ast.FuncDecl) string {
			if n := f.Type.Params.NumFields(); n > maxParameters {
				return fmt.Sprintf("has %d parameters, at most %d are allowed: make them a struct", n, maxParameters)
			}
			return ""
		})
	},
	broken: map[string]files{
		"core/cache/new.go:New": {"core/cache/new.go": "package cache\n\nfunc New(a, b, c int, d, e, f, g string) {}\n"},
	},
}

// eachFunction returns what judge says about the functions that have no excuse.
func eachFunction(t *tree, judge func(*source, *ast.FuncDecl) string) (found []finding) {
	for _, s := range t.written() {
		functions := s.functions()
		for _, name := range keys(functions) {
			key := s.path + ":" + name
			if text := judge(s, functions[name]); text != "" && !t.excuse(key) {
				found = append(found, finding{key, text})
			}
		}
	}
	return found
}

var fileSize = rule{
	name: "file-size",
	why:  "a file is about one thing; aim at 250 lines",
	check: func(t *tree) (found []finding) {
		for _, s := range t.written() {
			n, limit := strings.Count(s.text, "\n"), s.limit(maxFile, maxTestFile)
			if n > limit && !t.excuse(s.path) {
				found = append(found, finding{s.path, fmt.Sprintf("has %d lines, at most %d are allowed", n, limit)})
			}
		}
		return found
	},
	broken: map[string]files{
		"core/cache/long.go":      {"core/cache/long.go": long(501)},
		"core/cache/long_test.go": {"core/cache/long_test.go": long(801)},
	},
}

var pipelineSize = rule{
	name: "pipeline-size",
	why:  "whoever writes a filter reads all of core/pipeline, so it stays small for ever; its comments are free",
	check: func(t *tree) []finding {
		n := 0
		for _, s := range t.written() {
			if s.dir == "core/pipeline" && !s.test {
				n += codeLines(s.text)
			}
		}
		if n > maxPipeline {
			return []finding{{"core/pipeline", fmt.Sprintf("has %d lines of code, at most %d are allowed", n, maxPipeline)}}
		}
		return nil
	},
	broken: map[string]files{
		"core/pipeline": {"core/pipeline/more.go": "package pipeline\n" + strings.Repeat("// free\nvar _ = 1\n", maxPipeline)},
	},
}

// limit is the limit for product code or for tests, whichever a file is.
func (s *source) limit(product, test int) int {
	if s.test || within(s.dir, "test") {
		return test
	}
	return product
}

// codeLines counts lines that are neither empty nor comment.
func codeLines(text string) int {
	fset := token.NewFileSet()
	file := fset.AddFile("", -1, len(text))
	var s scanner.Scanner
	s.Init(file, []byte(text), nil, 0)
	code := map[int]bool{}
	for {
		pos, tok, lit := s.Scan()
		if tok == token.EOF {
			return len(code)
		}
		first := file.Line(pos)
		for line := first; line <= first+strings.Count(strings.TrimSuffix(lit, "\n"), "\n"); line++ {
			code[line] = true
		}
	}
}
