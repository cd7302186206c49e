package audit

import (
	"fmt"

	"tidegate.io/tidegate/egress"
)

// retired are destinations that AKS once needed. A rule for one is a door to
// whoever gets the name next.
var retired = []struct {
	names names
	since string
	why   string
}{
	{names{rest: "acs-mirror.azureedge.net"}, "2025-05-31", "the mirror was retired with its CDN on 2025-05-31; nodes use packages.aks.azure.com."},
	{names{rest: "apt.dockerproject.org"}, "2022-03", "download.docker.com took its place in 2022."},
	{names{rest: "aksrepos.azurecr.io"}, "2020-02", "images come from mcr.microsoft.com since 2020."},
	{names{rest: "gov-prod-policy-data.trafficmanager.net"}, "2021-05", "Azure Policy uses data.policy and store.policy names since 2021."},
	{names{rest: "gcr.azk8s.cn"}, "2026-01", "mcr.azure.cn took its place."},
	{names{rest: "mcr.azk8s.cn"}, "2026-01", "mcr.azure.cn took its place."},
	{names{rest: "*.cdn.mscr.io"}, "2020-03", "the registry's data comes from names below data.mcr.microsoft.com since 2020."},
	{names{lead: below, rest: "tun.*.azmk8s.io"}, "2020-06", "Konnectivity took the tunnel's place."},
}

// indexRetired finds an endpoint among them, or returns -1.
func indexRetired(e egress.Endpoint) int {
	p, ok := e.Host.(egress.Pattern)
	if !ok {
		return -1
	}
	for i, r := range retired {
		if r.names.covers(p) {
			return i
		}
	}
	return -1
}

func isRetired(n names) bool {
	for _, r := range retired {
		if r.names.holds(n) {
			return true
		}
	}
	return false
}

// retired finds rules for them. What the catalogue still lists is worth a
// remark, not a change.
func (j *judge) retired() {
	said := map[[2]string]bool{}
	for _, g := range j.grants {
		if g.deny || g.to.names.none() || said[[2]string{g.at, g.text}] {
			continue
		}
		for _, r := range retired {
			if !r.names.holds(g.to.names) {
				continue
			}
			said[[2]string{g.at, g.text}] = true
			f := Finding{Kind: Retired, Level: Warning, At: g.at, Text: g.text, Why: fmt.Sprintf("Not needed since %s: %s", r.since, r.why)}
			if j.needed(&g) {
				f.Level = Info
			}
			j.say(f)
		}
	}
}
