package aks

import (
	"fmt"
	"slices"
	"strings"
)

// regions are the names of Azure's regions as the resource manager spells them.
// A region that is missing here is still believed when the API server's own
// name holds it, for Azure opens regions faster than anyone updates a firewall.
var regions = map[Cloud][]string{
	Public: {
		"australiacentral", "australiacentral2", "australiaeast", "australiasoutheast", "austriaeast", "belgiumcentral",
		"brazilsouth", "brazilsoutheast", "canadacentral", "canadaeast", "centralindia", "centralus", "centraluseuap",
		"chilecentral", "denmarkeast", "eastasia", "eastus", "eastus2", "eastus2euap", "eastusstg", "francecentral", "francesouth",
		"germanynorth", "germanywestcentral", "indonesiacentral", "israelcentral", "israelnorthwest", "italynorth", "japaneast", "japanwest",
		"jioindiacentral", "jioindiawest", "koreacentral", "koreasouth", "malaysiasouth", "malaysiawest", "mexicocentral",
		"newzealandnorth", "northcentralus", "northeurope", "norwayeast", "norwaywest", "polandcentral", "qatarcentral",
		"southafricanorth", "southafricawest", "southcentralus", "southcentralusstg", "southeastasia", "southindia", "spaincentral", "swedencentral",
		"swedensouth", "switzerlandnorth", "switzerlandwest", "taiwannorth", "taiwannorthwest", "uaecentral", "uaenorth",
		"uksouth", "ukwest", "westcentralus", "westeurope", "westindia", "westus", "westus2", "westus3",
	},
	China: {"chinaeast", "chinaeast2", "chinaeast3", "chinanorth", "chinanorth2", "chinanorth3"},
	USGov: {"usdodcentral", "usdodeast", "usgovarizona", "usgoviowa", "usgovtexas", "usgovvirginia"},
}

// tagRegions are the ten regions that AzureCloud service tags spell in another
// way. Security groups and the published file know only these spellings.
var tagRegions = map[string]string{
	"brazilsoutheast":    "brazilse",
	"chilecentral":       "chilec",
	"francecentral":      "centralfrance",
	"francesouth":        "southfrance",
	"germanynorth":       "germanyn",
	"germanywestcentral": "germanywc",
	"norwayeast":         "norwaye",
	"norwaywest":         "norwayw",
	"switzerlandnorth":   "switzerlandn",
	"switzerlandwest":    "switzerlandw",
}

// TagRegion returns a region as the AzureCloud service tags spell it.
func TagRegion(region string) string {
	if t, ok := tagRegions[region]; ok {
		return t
	}
	return region
}

// Regions returns the regions of a cloud that this version knows, sorted.
func Regions(c Cloud) []string { return slices.Clone(regions[c]) }

// plainRegion turns "West Europe" into "westeurope"; the portal shows the one
// and the resource manager the other. It refuses what cannot be a region,
// since the result becomes a label of names.
func plainRegion(s string) (string, error) {
	r := strings.ToLower(strings.ReplaceAll(strings.TrimSpace(s), " ", ""))
	for _, c := range r {
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') {
			return "", fmt.Errorf("region %q: want a name such as westeurope", s)
		}
	}
	if len(r) > 50 {
		return "", fmt.Errorf("region %q: longer than any", s[:50])
	}
	return r, nil
}

// checkRegion says whether a region is one of the cloud's, and what was
// probably meant if not.
func checkRegion(c Cloud, region string) error {
	if slices.Contains(regions[c], region) {
		return nil
	}
	if other := cloudOfRegion(region); other != c {
		return fmt.Errorf("region %q belongs to the cloud %s, not %s", region, other, c)
	}
	for full, tag := range tagRegions {
		if tag == region {
			return fmt.Errorf("region %q is how service tags spell it; want %q", region, full)
		}
	}
	best, distance := "", 3 // farther than two letters is another word
	for _, r := range regions[c] {
		if d := editDistance(r, region); d < distance {
			best, distance = r, d
		}
	}
	if best != "" {
		return fmt.Errorf("region %q is not known in the cloud %s; did you mean %q?", region, c, best)
	}
	return fmt.Errorf("region %q is not known in the cloud %s", region, c)
}

// editDistance is Levenshtein's, for hints only.
func editDistance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost++
			}
			diagonal = row[j+1]
			row[j+1] = min(cost, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
