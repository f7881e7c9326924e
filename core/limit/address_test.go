package limit

import "testing"

func TestAddressOf(t *testing.T) {
	for remote, want := range map[string]string{
		"10.0.0.9:1234":            "10.0.0.9",
		"[::ffff:10.0.0.9]:1234":   "10.0.0.9",
		"[2001:db8:1:2:3::4]:1234": "2001:db8:1:2::/64",
		"[fe80::1%eth0]:1234":      "fe80::/64",
		"pipe":                     "pipe",
	} {
		if got := AddressOf(remote); got != want {
			t.Errorf("%s: got %s, want %s", remote, got, want)
		}
	}
}
