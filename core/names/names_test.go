package names

import (
	"testing"
)

var tenant = New("tenant-a-", nil)

func TestNamesAreMappedBothWays(t *testing.T) {
	both := New("a-", map[string]string{"default": "a-main", "shared": "commons"})
	plain := New("", map[string]string{"default": "shop"})
	for _, tt := range []struct {
		m            *Mapping
		own, cluster string
	}{
		{tenant, "default", "tenant-a-default"},
		{tenant, "tenant-a-x", "tenant-a-tenant-a-x"},
		{tenant, "", ""},
		{both, "default", "a-main"},
		{both, "shared", "commons"},
		{both, "team", "a-team"},
		{both, "main", "_main"}, // a-main is the default
		{plain, "default", "shop"},
		{plain, "team", "team"},
		{plain, "shop", "_shop"},
	} {
		if got := tt.m.Cluster(tt.own); got != tt.cluster {
			t.Errorf("%q is %q in the cluster, and not %q", tt.own, got, tt.cluster)
		}
		if got, ok := tt.m.Virtual(tt.cluster); got != tt.own || !ok {
			t.Errorf("%q is %q, %v for the tenant, and not %q", tt.cluster, got, ok, tt.own)
		}
	}
	for _, tt := range []struct {
		m    *Mapping
		name string
	}{
		{tenant, "default"}, {tenant, "tenant-b-default"}, {tenant, "tenant-a-"}, {both, "a-default"}, {both, "b"}, {plain, "default"}, {plain, "_x"},
	} {
		if got, ok := tt.m.Virtual(tt.name); ok {
			t.Errorf("%q is %q for the tenant", tt.name, got)
		}
		if tt.m.Has(tt.name) {
			t.Errorf("%q has a name", tt.name)
		}
	}
	if !plain.Chooses("shop") || plain.Chooses("other") || !both.Chooses("a-x") || both.Chooses("a-default") || !both.Chooses("commons") {
		t.Error("chosen are others than are told of")
	}
}

func TestTextsHaveTheTenantsNames(t *testing.T) {
	m := New("tenant-a-", map[string]string{"shared": "commons"})
	for text, want := range map[string]string{
		`namespaces "tenant-a-team" not found`:                   `namespaces "team" not found`,
		`assigned tenant-a-default/web to node-1`:                `assigned default/web to node-1`,
		`system:serviceaccount:tenant-a-default:web cannot`:      `system:serviceaccount:default:web cannot`,
		`dial web.tenant-a-default.svc: in commons, not common`:  `dial web.default.svc: in shared, not common`,
		`names begin with "tenant-a-"`:                           `names begin with ""`,
		`nothing`:                                                `nothing`,
		`an_under_score stays, and so does _this`:                `an_under_score stays, and so does _this`,
		`restarting web in pod web-0_tenant-a-x(7)`:              `restarting web in pod web-0_x(7)`,
		`by ?a%3Dtenant-a-x, "in\ntenant-a-x" and \`:             `by ?a%3Dx, "in\nx" and \`,
		`/api/v1/namespaces/tenant-a-x/services/web:80/proxy/a/`: `/api/v1/namespaces/x/services/web:80/proxy/a/`,
	} {
		if got := m.Text(text); got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
	if got := New("", map[string]string{"default": "shop"}).Text(`namespaces "_shop" not found, shop is`); got != `namespaces "shop" not found, default is` {
		t.Errorf("got %s", got)
	}
}

func FuzzNoTwoNamesAreOne(f *testing.F) {
	f.Add("a-", "default", "a-main", "main", "a-main")
	f.Add("", "default", "shop", "shop", "default")
	f.Fuzz(func(t *testing.T, prefix, own, cluster, one, other string) {
		if own == "" || cluster == "" || cluster[0] == '_' || own[0] == '_' || len(prefix) > 0 && prefix[0] == '_' {
			return
		}
		m := New(prefix, map[string]string{own: cluster})
		if one != other && m.Cluster(one) == m.Cluster(other) && one != "" && other != "" && one[0] != '_' && other[0] != '_' {
			t.Errorf("%q and %q are both %q", one, other, m.Cluster(one))
		}
		if back, ok := m.Virtual(m.Cluster(one)); one != "" && one[0] != '_' && (back != one || !ok) {
			t.Errorf("%q is %q, and that is %q", one, m.Cluster(one), back)
		}
		if v, ok := m.Virtual(other); ok && m.Cluster(v) != other {
			t.Errorf("%q is shown as %q, which is %q", other, v, m.Cluster(v))
		}
	})
}
