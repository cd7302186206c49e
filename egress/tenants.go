package egress

import (
	"maps"
	"slices"
	"strings"
)

// tenants are suffixes below which any customer of a provider can make a name.
var tenants = names(
	"blob.core.windows.net", "table.core.windows.net", "queue.core.windows.net", "file.core.windows.net", "dfs.core.windows.net", "web.core.windows.net",
	"blob.storage.azure.net", "blob.core.chinacloudapi.cn", "blob.core.usgovcloudapi.net",
	"vault.azure.net", "vault.azure.cn", "vault.usgovcloudapi.net", "azurecr.io", "azurecr.cn", "azurecr.us", "azurewebsites.net",
	"cloudapp.azure.com", "cloudapp.net", "trafficmanager.net", "azurefd.net", "azureedge.net", "azure-api.net", "servicebus.windows.net",
	"ods.opinsights.azure.com", "oms.opinsights.azure.com", "ingest.monitor.azure.com", "metrics.ingest.monitor.azure.com", // one name a workspace
	"ods.opinsights.azure.us", "oms.opinsights.azure.us", "ingest.monitor.azure.us", "metrics.ingest.monitor.azure.us", "ods.opinsights.azure.cn", "oms.opinsights.azure.cn", "ingest.monitor.azure.cn", "metrics.ingest.monitor.azure.cn",
	"database.windows.net", "documents.azure.com", "azmk8s.io", "azurestaticapps.net", "azurecontainerapps.io",
	"amazonaws.com", "s3.amazonaws.com", "cloudfront.net", "github.io", "githubusercontent.com", "googleapis.com", "storage.googleapis.com", "appspot.com",
	"herokuapp.com", "netlify.app", "vercel.app", "pages.dev", "workers.dev", "r2.dev", "r2.cloudflarestorage.com", "ngrok.io", "ngrok-free.app",
)

func names(ss ...string) map[Name]bool {
	m := make(map[Name]bool, len(ss))
	for _, s := range ss {
		m[MustParseName(s)] = true
	}
	return m
}

// MultiTenant reports whether any customer of a provider can make a name directly
// below n, so that a wildcard there leads to anybody. The list is of what AKS
// clusters commonly meet, and cannot be whole.
func MultiTenant(n Name) bool { return tenants[n] }

// MultiTenantSuffixes returns all of them, sorted, in a new slice.
func MultiTenantSuffixes() []Name {
	return slices.SortedFunc(maps.Keys(tenants), func(a, b Name) int { return strings.Compare(a.s, b.s) })
}
