//go:build linux

package lab

import (
	"net/netip"
	"slices"
	"testing"
)

func TestNamesHaveTheirOwnAddresses(t *testing.T) {
	z := &Zone{Private: []string{"bootstrap.azurecr.io"}}
	owner := map[netip.Addr]string{}
	for _, name := range []string{
		"mcr.microsoft.com", "login.microsoftonline.com", "management.azure.com", "packages.microsoft.com", "packages.aks.azure.com",
		"acs-mirror.azureedge.net", "security.ubuntu.com", "azure.archive.ubuntu.com", "changelogs.ubuntu.com", "snapshot.ubuntu.com",
		"a.data.mcr.microsoft.com", "b.data.mcr.microsoft.com", "one.blob.core.windows.net", "two.blob.core.windows.net",
		"one.vault.azure.net", "two.vault.azure.net", "vm.evil.example", "c2.evil.example", "bootstrap.azurecr.io",
	} {
		addrs := z.Addrs(name)
		if len(addrs) == 0 || !slices.Equal(addrs, (&Zone{Private: z.Private}).Addrs(name)) {
			t.Errorf("%s: %v, and another time something else", name, addrs)
		}
		for _, a := range addrs {
			if other, taken := owner[a]; taken {
				t.Errorf("%s and %s share %s", name, other, a)
			}
			owner[a] = name
			if !publicV4.Contains(a) && !publicV6.Contains(a) && !privateV4.Contains(a) {
				t.Errorf("%s has %s, where nobody listens", name, a)
			}
		}
	}
}

func TestNamesOfTheAttackers(t *testing.T) {
	z := &Zone{}
	for _, c := range []struct {
		what, name string
		want       []netip.Addr
	}{
		{"a name may lead anywhere", "a-169-254-169-254.data.mcr.microsoft.com", []netip.Addr{netip.MustParseAddr("169.254.169.254")}},
		{"an address in the wrong form is a word", "a-1-2-3.evil.example", z.Addrs("a-1-2-3.evil.example")},
		{"two names may share addresses", "on.mcr.microsoft.com.evil.example", z.Addrs("mcr.microsoft.com")},
		{"private links lead inside", "x.privatelink.westeurope.azmk8s.io", []netip.Addr{hashAddr(privateV4, "x.privatelink.westeurope.azmk8s.io", 0)}},
		{"but not those of Azure's own chains", "management.azure.com", z.Addrs("arm-frontdoor-prod.trafficmanager.net")},
		{"what is not there", "kubernetes.default.svc.cluster.local", nil},
	} {
		if got := z.Addrs(c.name); !slices.Equal(got, c.want) {
			t.Errorf("%s: %s has %v, want %v", c.what, c.name, got, c.want)
		}
	}
}

func TestRotatingNamesShowAllTheirAddressesInTime(t *testing.T) {
	z := &Zone{}
	seen := map[netip.Addr]bool{}
	for range 20 {
		some, ttl := z.Answer("security.ubuntu.com", false)
		if len(some) != rotatingAnswer || ttl > 10 {
			t.Fatalf("%v for %d s", some, ttl)
		}
		for _, a := range some {
			seen[a] = true
		}
	}
	if len(seen) != 8 {
		t.Errorf("%d addresses, want %d", len(seen), 8)
	}
}
