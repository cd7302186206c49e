package egress

import "testing"

func TestMultiTenant(t *testing.T) {
	for name, want := range map[string]bool{
		"blob.core.windows.net": true, "vault.azure.net": true, "account.blob.core.windows.net": false, "windows.net": false, "mcr.microsoft.com": false,
	} {
		if got := MultiTenant(MustParseName(name)); got != want {
			t.Errorf("%s: %v", name, got)
		}
	}
	all := MultiTenantSuffixes()
	for i, n := range all {
		if !MultiTenant(n) || i > 0 && all[i-1].s >= n.s {
			t.Errorf("%s is not in its place", n)
		}
	}
}
