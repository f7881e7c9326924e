package limit

import (
	"encoding/json"
	"fmt"
	"math"
	"regexp"
	"slices"
	"time"
)

// Bounds of what a limit may say.
const (
	maxKeyParts = 16
	maxMessage  = 512 // bytes
	longest     = 30 * time.Second
	// defaultDelay is how long a delayed request waits if the limit does not
	// say: what is shorter than a second cannot be said in a Retry-After.
	defaultDelay = time.Second
)

var idPattern = regexp.MustCompile(`^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$`)

// Decode reads a limit as policies write it: the JSON value of one. What it does
// not know it refuses, so that no misspelt field is a limit less.
func Decode(value any) (Limit, error) {
	fields, ok := value.(map[string]any)
	if !ok {
		return Limit{}, fmt.Errorf("a limit is an object, not %T", value)
	}
	l := Limit{Cost: Cost{Fixed: 1}, OnExceed: Reject, Applies: Client, Scope: Proxy, MaxDelay: defaultDelay}
	for name, v := range fields {
		if err := l.set(name, v); err != nil {
			return Limit{}, fmt.Errorf("limit %v: %s: %w", fields["id"], name, err)
		}
	}
	if err := l.check(); err != nil {
		return Limit{}, fmt.Errorf("limit %v: %w", fields["id"], err)
	}
	return l, nil
}

func (l *Limit) check() error {
	switch {
	case l.ID == "":
		return fmt.Errorf("has no id")
	case len(l.Key) == 0:
		return fmt.Errorf("has no key: say which requests share it")
	case l.Tokens == nil && l.InFlight == nil:
		return fmt.Errorf("has neither tokens nor inFlight")
	case l.Tokens == nil && l.Cost.From != "":
		return fmt.Errorf("has a cost, but no tokens to take it from")
	}
	return nil
}

func (l *Limit) set(name string, v any) (err error) {
	switch name {
	case "id":
		l.ID, err = matching(v, idPattern)
	case "key":
		l.Key, err = parts(v)
	case "tokens":
		l.Tokens, err = decodeTokens(v)
	case "inFlight":
		l.InFlight, err = decodeInFlight(v)
	case "cost":
		l.Cost, err = decodeCost(v)
	case "onExceed":
		l.OnExceed, err = oneOf(v, Reject, Delay, ServeCached, Warn)
	case "applies":
		l.Applies, err = oneOf(v, Client, Upstream)
	case "scope":
		l.Scope, err = oneOf(v, Proxy, ClusterShare)
	case "mode":
		var mode string
		mode, err = oneOf(v, "Enforce", "Audit")
		l.Audit = mode == "Audit"
	case "maxDelay":
		l.MaxDelay, err = delay(v)
	case "message":
		l.Message, err = text(v)
		if len(l.Message) > maxMessage {
			err = fmt.Errorf("is longer than %d bytes", maxMessage)
		}
	default:
		err = fmt.Errorf("is no field of a limit")
	}
	return err
}

func decodeTokens(v any) (*Tokens, error) {
	t := &Tokens{Burst: -1}
	err := eachField(v, func(name string, v any) (err error) {
		switch name {
		case "rate":
			t.Rate, err = number(v)
		case "burst":
			t.Burst, err = number(v)
		default:
			err = fmt.Errorf("%s is no field of tokens", name)
		}
		return err
	})
	if t.Burst < 0 {
		t.Burst = max(1, math.Ceil(t.Rate))
	}
	return t, err
}

func decodeInFlight(v any) (*InFlight, error) {
	f := &InFlight{}
	err := eachField(v, func(name string, v any) error {
		n, err := number(v)
		if name != "max" {
			err = fmt.Errorf("%s is no field of inFlight", name)
		}
		f.Max = int(min(n, math.MaxInt32))
		return err
	})
	return f, err
}

// decodeCost reads a number, or what a cost is measured by.
func decodeCost(v any) (Cost, error) {
	if _, ok := v.(map[string]any); !ok {
		fixed, err := number(v)
		return Cost{Fixed: fixed}, err
	}
	c := Cost{Per: 1}
	err := eachField(v, func(name string, v any) (err error) {
		switch name {
		case "from":
			c.From, err = oneOf(v, ResponseBytes, ResponseObjects, Duration)
		case "per":
			if c.Per, err = number(v); err == nil && c.Per == 0 {
				err = fmt.Errorf("per is 0")
			}
		default:
			err = fmt.Errorf("%s is no field of a cost", name)
		}
		return err
	})
	if err == nil && c.From == "" {
		err = fmt.Errorf("says not from what")
	}
	return c, err
}

func eachField(v any, set func(string, any) error) error {
	fields, ok := v.(map[string]any)
	if !ok {
		return fmt.Errorf("is no object")
	}
	for name, v := range fields {
		if err := set(name, v); err != nil {
			return err
		}
	}
	return nil
}

// number reads one that is not negative.
func number(v any) (n float64, err error) {
	switch v := v.(type) {
	case json.Number:
		n, err = v.Float64()
	case float64:
		n = v
	case int:
		n = float64(v)
	default:
		return 0, fmt.Errorf("is no number")
	}
	if err != nil || n < 0 || math.IsNaN(n) || math.IsInf(n, 0) {
		return 0, fmt.Errorf("must be a number of at least 0")
	}
	return n, nil
}

func text(v any) (string, error) {
	s, ok := v.(string)
	if !ok {
		return "", fmt.Errorf("is no string")
	}
	return s, nil
}

func matching(v any, pattern *regexp.Regexp) (string, error) {
	s, err := text(v)
	if err == nil && !pattern.MatchString(s) {
		return "", fmt.Errorf("must be of lower-case letters, digits and -, at most 63")
	}
	return s, err
}

func oneOf[T ~string](v any, allowed ...T) (T, error) {
	s, err := text(v)
	if err == nil && !slices.Contains(allowed, T(s)) {
		return "", fmt.Errorf("must be one of %v", allowed)
	}
	return T(s), err
}

func parts(v any) ([]string, error) {
	list, ok := v.([]any)
	if !ok || len(list) == 0 || len(list) > maxKeyParts {
		return nil, fmt.Errorf("must be a list of 1 to %d strings", maxKeyParts)
	}
	key := make([]string, len(list))
	for i, part := range list {
		if key[i], ok = part.(string); !ok {
			return nil, fmt.Errorf("must be a list of strings")
		}
	}
	return key, nil
}

func delay(v any) (time.Duration, error) {
	s, err := text(v)
	if err != nil {
		return 0, err
	}
	d, err := time.ParseDuration(s)
	if err != nil || d <= 0 || d > longest {
		return 0, fmt.Errorf("must be a duration of at most %v, as in 500ms", longest)
	}
	return d, nil
}
