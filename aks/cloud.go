package aks

import (
	"fmt"
	"strings"

	"tidegate.io/tidegate/egress"
)

// Cloud is one of Azure's clouds. The zero Cloud is none.
type Cloud uint8

// The clouds that have AKS.
const (
	Public Cloud = iota + 1
	China
	USGov
)

// Clouds are all of them, in the order of the article.
var Clouds = [...]Cloud{Public, China, USGov}

// clouds says how each cloud is written and what is called differently in it.
var clouds = [...]struct {
	name         string
	aliases      []string // lower case, letters and digits only
	locations    []string // prefixes of its regions' names; none for the public cloud
	apiServers   string   // what every API server's name ends in, behind the region
	registries   string
	vaults       string
	vaultZone    string // the private DNS zones of private endpoints
	registryZone string
	tags         string // how the service tags file calls it
}{
	Public: {
		name: "public", aliases: []string{"azurecloud", "azurepubliccloud", "azureglobal", "azurepublic", "global", "commercial"},
		apiServers: "azmk8s.io", registries: "azurecr.io", registryZone: "privatelink.azurecr.io",
		vaults: "vault.azure.net", vaultZone: "privatelink.vaultcore.azure.net", tags: "Public",
	},
	China: {
		name: "china", aliases: []string{"azurechinacloud", "azurechina", "21vianet", "azureoperatedby21vianet", "microsoftazureoperatedby21vianet", "mooncake"},
		locations:  []string{"china"},
		apiServers: "cx.prod.service.azk8s.cn", registries: "azurecr.cn", registryZone: "privatelink.azurecr.cn",
		vaults: "vault.azure.cn", vaultZone: "privatelink.vaultcore.azure.cn", tags: "China",
	},
	USGov: {
		name: "usgov", aliases: []string{"azureusgovernment", "azureusgovernmentcloud", "azuregovernment", "azureusgov", "usgovernment", "government", "gov", "fairfax"},
		locations:  []string{"usgov", "usdod"},
		apiServers: "cx.aks.containerservice.azure.us", registries: "azurecr.us", registryZone: "privatelink.azurecr.us",
		vaults: "vault.usgovcloudapi.net", vaultZone: "privatelink.vaultcore.usgovcloudapi.net", tags: "AzureGovernment",
	},
}

// ParseCloud reads public, china or usgov, in whichever of the spellings that
// Azure's documentation and tools use.
func ParseCloud(s string) (Cloud, error) {
	plain := strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= '0' && r <= '9' {
			return r
		}
		return -1
	}, strings.ToLower(s))
	for _, c := range Clouds {
		if plain == clouds[c].name {
			return c, nil
		}
		for _, a := range clouds[c].aliases {
			if plain == a {
				return c, nil
			}
		}
	}
	return 0, fmt.Errorf("cloud %q: want public, china or usgov", s)
}

// String returns public, china or usgov; "" for the zero Cloud.
func (c Cloud) String() string { return clouds[c].name }

// MarshalText is String.
func (c Cloud) MarshalText() ([]byte, error) { return []byte(c.String()), nil }

// UnmarshalText is ParseCloud.
func (c *Cloud) UnmarshalText(b []byte) (err error) {
	*c, err = ParseCloud(string(b))
	return err
}

// cloudOfRegion goes by the prefixes of the sovereign clouds' regions.
func cloudOfRegion(region string) Cloud {
	for _, c := range Clouds {
		for _, p := range clouds[c].locations {
			if strings.HasPrefix(region, p) {
				return c
			}
		}
	}
	return Public
}

// apiServerName takes an API server's name apart: the cloud that its end
// belongs to, and the region in front of that. Test clouds have another label
// in between, which is refused.
func apiServerName(n egress.Name) (Cloud, string, error) {
	for _, c := range Clouds {
		rest, ok := strings.CutSuffix(n.String(), "."+clouds[c].apiServers)
		if !ok {
			continue
		}
		if region := rest[strings.LastIndexByte(rest, '.')+1:]; region != rest {
			return c, region, nil
		}
	}
	return 0, "", fmt.Errorf("%q is not a name of an AKS API server", n)
}
