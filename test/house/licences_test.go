package house

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// licences that what is linked into the binary may have, by words of their texts.
// All of them let it be passed on under ours.
var licences = map[string]string{
	"Apache-2.0": "Apache License",
	"MIT":        "Permission is hereby granted, free of charge",
	"BSD":        "Redistribution and use in source and binary forms",
	"ISC":        "Permission to use, copy, modify, and/or distribute this software for any purpose",
}

// licenceOf names the licence whose text it is, nothing if none of those allowed.
func licenceOf(text string) string {
	text = strings.Join(strings.Fields(text), " ")
	for name, words := range licences {
		if strings.Contains(text, words) {
			return name
		}
	}
	return ""
}

var licenceFile = regexp.MustCompile(`(?i)^(licen[cs]e|copying)`)

// readLicence returns the licence of the module in dir.
func readLicence(t *testing.T, dir string) string {
	t.Helper()
	files, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		if !licenceFile.MatchString(f.Name()) {
			continue
		}
		text, err := os.ReadFile(filepath.Join(dir, f.Name()))
		if err != nil {
			t.Fatal(err)
		}
		return licenceOf(string(text))
	}
	return ""
}

// TestLicencesOfWhatIsLinked reads the licence of every module that the binary has a
// package of.
func TestLicencesOfWhatIsLinked(t *testing.T) {
	list := exec.Command("go", "list", "-deps", "-f", "{{with .Module}}{{.Path}}\t{{.Dir}}{{end}}", "./cmd/portico")
	list.Dir = "../.."
	out, err := list.Output()
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Fields(strings.ReplaceAll(string(out), "\t", "="))
	slices.Sort(lines)
	lines = slices.Compact(lines)
	if len(lines) < 2 {
		t.Fatalf("the binary has packages of %v only", lines)
	}
	for _, line := range lines {
		path, dir, _ := strings.Cut(line, "=")
		if readLicence(t, dir) == "" {
			t.Errorf("%s has no licence that is allowed: see %s", path, dir)
		}
	}
}

func TestOtherLicencesAreFoundOut(t *testing.T) {
	for _, text := range []string{"GNU GENERAL PUBLIC LICENSE Version 3", "Mozilla Public License Version 2.0", "All rights reserved.", ""} {
		if name := licenceOf(text); name != "" {
			t.Errorf("%q is taken for %s", text, name)
		}
	}
	if readLicence(t, t.TempDir()) != "" {
		t.Error("a module without a licence has one")
	}
}
