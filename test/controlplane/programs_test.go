package controlplane

import "testing"

func TestProgramsBuildsOnce(t *testing.T) {
	dir, err := Programs(t.Context(), ProgramsOptions{Progress: t.Output()})
	if err != nil {
		t.Fatal(err)
	}
	t.Log(dir)
}
