package isolated

import (
	_ "embed"
	"fmt"
	"strconv"
	"strings"

	"tidegate.io/tidegate/aks"
)

// Artefact is something that a node asks the registry for when it boots.
type Artefact struct {
	Image    string `json:"image"`              // below the registry's prefix, such as oss/v2/kubernetes/pause:3.6
	Platform string `json:"platform,omitempty"` // of the entry that the node takes from an index: linux/amd64:ubuntu 22.04; empty: any
	Why      string `json:"why"`
}

// Upstream is how images of Microsoft's registry are called everywhere else.
const Upstream = "mcr.microsoft.com"

//go:embed artefacts.txt
var artefactLines string

// Artefacts returns what the nodes of a cluster ask for, with the cluster's own
// version and one entry for each of its systems. It reports what it had to leave
// out, in sentences, such as without a version.
func Artefacts(c *aks.Cluster) (out []Artefact, leftOut []string) {
	version, err := parseVersion(c.Kubernetes)
	if err != nil {
		leftOut = append(leftOut, "The cluster's version of Kubernetes is not known, so kubelet, kubectl and what goes by the version are left out.")
	}
	platforms := platformsOf(c)
	for line := range strings.Lines(artefactLines) {
		a, ok := artefactLine(line)
		if !ok || !a.versions.has(version) {
			continue
		}
		image := strings.ReplaceAll(a.image, "{kubernetes}", strings.TrimPrefix(c.Kubernetes, "v"))
		if !a.byPlatform {
			out = append(out, Artefact{image, "", a.why})
			continue
		}
		for _, p := range platforms {
			out = append(out, Artefact{image, p, a.why})
		}
	}
	return out, leftOut
}

// line is one of artefacts.txt.
type line struct {
	image      string
	byPlatform bool
	versions   versions
	why        string
}

func artefactLine(text string) (line, bool) {
	text, _, _ = strings.Cut(text, "#")
	f := strings.Fields(text)
	if len(f) < 4 {
		return line{}, false
	}
	from, to, _ := strings.Cut(f[2], "-")
	return line{f[0], f[1] == "by-platform", versions{minor(from), minor(to)}, strings.Join(f[3:], " ")}, true
}

// versions are those of Kubernetes from one minor version to another; zero is
// open.
type versions struct{ from, to int }

// has: what goes by the version goes only where that is known.
func (v versions) has(minor int) bool {
	if v == (versions{}) {
		return true
	}
	return minor > 0 && minor >= v.from && (v.to == 0 || minor <= v.to)
}

func minor(s string) int {
	_, text, _ := strings.Cut(s, ".")
	n, _ := strconv.Atoi(text) // none is zero
	return n
}

// parseVersion returns the minor version of a whole one, such as 34 of 1.34.2.
func parseVersion(s string) (int, error) {
	parts := strings.Split(strings.TrimPrefix(s, "v"), ".")
	if len(parts) != 3 || parts[0] != "1" {
		return 0, fmt.Errorf("version %q: want three numbers, such as 1.34.2", s)
	}
	for _, p := range parts[1:] {
		if n, err := strconv.ParseUint(p, 10, 16); err != nil || strconv.FormatUint(n, 10) != p {
			return 0, fmt.Errorf("version %q: want three numbers, such as 1.34.2", s)
		}
	}
	n, err := strconv.Atoi(parts[1])
	return n, err
}

// systems are the node images by the beginning of their names, with how the
// registry's indexes call the system. Longer beginnings come first.
var systems = []struct{ image, version string }{
	{"AKSUbuntu-1804", "ubuntu 18.04"},
	{"AKSUbuntu-2004", "ubuntu 20.04"},
	{"AKSUbuntu-2204", "ubuntu 22.04"},
	{"AKSUbuntu-2404", "ubuntu 24.04"},
	{"AKSAzureLinux-V2", "azurelinux 2.0"},
	{"AKSAzureLinux-V3", "azurelinux 3.0"},
}

// platformsOf are the platforms of the cluster's pools, each once; a pool whose
// image is not known counts as any system.
func platformsOf(c *aks.Cluster) []string {
	var out []string
	seen := map[string]bool{}
	for _, p := range c.Pools {
		if p.Windows {
			continue
		}
		platform := "linux/" + architecture(p.Image)
		for _, s := range systems {
			if strings.HasPrefix(strings.ToLower(p.Image), strings.ToLower(s.image)) {
				platform += ":" + s.version
			}
		}
		if !seen[platform] {
			seen[platform] = true
			out = append(out, platform)
		}
	}
	if len(out) == 0 {
		return []string{"linux/amd64"}
	}
	return out
}

// architecture: node images for Arm say so in their names.
func architecture(image string) string {
	if strings.Contains(strings.ToLower(image), "arm64") {
		return "arm64"
	}
	return "amd64"
}
