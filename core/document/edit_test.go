package document_test

import (
	"testing"

	"github.com/portico-proxy/portico/core/document"
)

func TestEditLeavesWhatItIsTold(t *testing.T) {
	leave := func(name, value []byte) ([]byte, error) {
		switch string(name) {
		case "out", "1":
			return nil, nil
		case "other/":
			return []byte(`"new"`), nil
		}
		return value, nil
	}
	for raw, want := range map[string]string{
		`{}`: `{}`, ` [ ] `: ` [ ] `, `7`: `7`, `"out"`: `"out"`, `null`: `null`,
		`{"out":1}`:                         `{}`,
		`{"a":1,"out":{"b":[1,"}"]},"c":2}`: `{"a":1,"c":2}`,
		`{"out":1,"a":1,"out":2}`:           `{"a":1}`,
		` { "a" : 1 , "out" : 2 } `:         ` { "a" : 1} `,
		`{"\u006fut":1,"a":"\"out"}`:        `{"a":"\"out"}`,
		`{"a":1,"other\/":2,"b":3}`:         `{"a":1,"other\/":"new","b":3}`,
		`[0,1,[1],3]`:                       `[0,[1],3]`,
		`{"a":{"out":1}}`:                   `{"a":{"out":1}}`,
	} {
		got, err := document.Edit([]byte(raw), leave)
		if err != nil || string(got) != want {
			t.Errorf("%s: got %s, %v, want %s", raw, got, err, want)
		}
	}
}

func TestEditRefusesWhatIsBroken(t *testing.T) {
	keep := func(_, value []byte) ([]byte, error) { return value, nil }
	for _, raw := range []string{`{`, `{"a"`, `{"a":`, `{"a":1`, `{"a":1,`, `{"a":1,}`, `{a:1}`, `{"a" 1}`, `[1`, `[1,`, `[1}`, `{"a":"b}`, `[[]`} {
		if got, err := document.Edit([]byte(raw), keep); err == nil {
			t.Errorf("%s: got %s", raw, got)
		}
	}
}
