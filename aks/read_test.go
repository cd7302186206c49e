package aks

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"tidegate.io/tidegate/egress"
)

// clusterJSON is the smallest cluster, in the command line's form, with fields
// of its own.
func clusterJSON(fields string) string {
	if fields != "" {
		fields = ", " + fields
	}
	return `{"name": "c", "location": "westeurope", "type": "Microsoft.ContainerService/ManagedClusters", "fqdn": "c-1a2b3c4d.hcp.westeurope.azmk8s.io"` + fields + `}`
}

func mustRead(t *testing.T, text string) Cluster {
	t.Helper()
	c, err := Read(strings.NewReader(text))
	if err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	return c
}

// Each row is a row of the table that says which field switches what.
func TestFieldsSwitchFeatures(t *testing.T) {
	pool := func(fields string) string { return `"agentPoolProfiles": [{"name": "p", ` + fields + `}]` }
	for _, tc := range []struct {
		fields string
		on     string // the features, in the table's order
	}{
		{`"addonProfiles": null`, ""},
		{`"addonProfiles": {}`, ""},
		{`"addonProfiles": {"omsagent": null, "azurepolicy": {"enabled": false}}`, ""},
		{`"addonProfiles": {"omsagent": {"enabled": true}}`, "monitor"},
		{`"addonProfiles": {"omsAgent": {"enabled": true}, "azurePolicy": {"enabled": true}}`, "monitor policy"},
		{`"addonProfiles": {"azureKeyvaultSecretsProvider": {"enabled": true}}`, "keyvault"},
		{`"addonProfiles": {"azurekeyvaultsecretsprovider": {"enabled": true}}`, "keyvault"},
		{`"azureMonitorProfile": {"metrics": {"enabled": true}}`, "monitor"},
		{`"azureMonitorProfile": {"containerInsights": {"enabled": true}}`, "monitor"},
		{`"azureMonitorProfile": {"appMonitoring": {"autoInstrumentation": {"enabled": true}}}`, "monitor app-insights"},
		{`"apiServerAccessProfile": null`, ""},
		{`"apiServerAccessProfile": {"enablePrivateCluster": true}`, "private"},
		{`"apiServerAccessProfile": {"enableVnetIntegration": true}`, "vnet-integrated"},
		{`"securityProfile": {"workloadIdentity": {"enabled": true}}`, "workload-identity"},
		{`"oidcIssuerProfile": {"enabled": true}`, ""},
		{`"securityProfile": {"defender": {"securityMonitoring": {"enabled": true}}}`, "defender"},
		{`"securityProfile": {"defender": {"securityGating": {"enabled": true}}}`, "defender"},
		{`"securityProfile": {"defender": {"logAnalyticsWorkspaceResourceId": "/w"}}`, "defender"},
		{`"securityProfile": {"defender": {"logAnalyticsWorkspaceResourceId": "/w", "securityMonitoring": {"enabled": false}}}`, ""},
		{`"securityProfile": {"azureDefender": {"enabled": true}}`, "defender"},
		{`"securityProfile": {"azureKeyVaultKms": {"enabled": true}}`, ""},
		{`"metricsProfile": {"costAnalysis": {"enabled": true}}`, "cost-analysis"},
		{`"serviceMeshProfile": {"mode": "Istio", "istio": {"certificateAuthority": {"plugin": {"keyVaultId": "/kv"}}}}`, "keyvault"},
		{`"serviceMeshProfile": {"mode": "Istio", "istio": {"components": {"ingressGateways": [{"enabled": true}]}}}`, ""},
		{`"serviceMeshProfile": {"mode": "Disabled", "istio": {"certificateAuthority": {"plugin": {"keyVaultId": "/kv"}}}}`, ""},
		{`"ingressProfile": {"webAppRouting": {"enabled": true}}`, ""},
		{`"networkProfile": {"outboundType": "none"}`, "network-isolated"},
		{`"networkProfile": {"outboundType": "block"}`, "network-isolated"},
		{`"networkProfile": {"outboundType": "somethingNew"}`, ""},
		{`"windowsProfile": {"adminUsername": "a"}`, ""},
		{pool(`"osType": "Linux", "osSku": "Ubuntu2404"`), "linux ubuntu"},
		{pool(`"osType": "Linux", "osSku": null`), "linux ubuntu"},
		{pool(`"osType": "Linux", "osSku": "AzureLinux3"`), "linux"},
		{pool(`"osType": "Windows", "osSku": "Windows2022"`), "windows"},
		{pool(`"osSku": "AzureLinux", "vmSize": "Standard_D4ds_v5"`), "linux"},
		{pool(`"osSku": "AzureLinux", "vmSize": "Standard_NC24ads_A100_v4"`), "linux gpu"},
		{pool(`"osSku": "AzureLinux", "vmSize": "standard_nd96isr_h100_v5"`), "linux gpu"},
		{pool(`"osSku": "AzureLinux", "vmSize": "Standard_NV36ads_A10_v5"`), "linux gpu"},
		{pool(`"osSku": "AzureLinux", "vmSize": "Standard_NC24ads_A100_v4", "gpuProfile": {"driver": "None"}`), "linux"},
		{pool(`"osSku": "AzureLinux", "vmSize": "Standard_NC24ads_A100_v4", "gpuProfile": {"nvidia": {"managementMode": "Managed"}}`), "linux gpu gpu-managed"},
		{pool(`"osSku": "AzureLinux", "vmSize": "Standard_NV8as_v4"`), "linux"},
		{pool(`"osSku": "AzureLinux", "vmSize": "Standard_ND96isr_MI300X_v5"`), "linux"},
		{pool(`"osSku": "AzureLinux", "vmSize": "Standard_NG32ads_V620_v1"`), "linux"},
		{pool(`"osSku": "AzureLinux", "vmSize": "Standard_NP10s"`), "linux"},
		{pool(`"osSku": "AzureLinux", "gpuInstanceProfile": "MIG1g"`), "linux gpu"},
		{pool(`"osSku": "AzureLinux", "vmSize": null, "virtualMachinesProfile": {"scale": {"manual": [{"size": "Standard_NC4as_T4_v3"}]}}`), "linux gpu"},
		{pool(`"osSku": "AzureLinux", "vmSize": null, "virtualMachinesProfile": {"scale": {"autoscale": {"size": "Standard_NC4as_T4_v3"}}}`), "linux gpu"},
		{pool(`"osSku": "AzureLinux", "vmSize": null, "virtualMachinesProfile": {"scale": {"autoscale": [{"size": "Standard_NC4as_T4_v3"}]}}`), "linux gpu"},
		{pool(`"osSku": "AzureLinux", "virtualMachineNodesStatus": [{"size": "Standard_NC4as_T4_v3"}]`), "linux gpu"},
		{pool(`"osSku": "AzureLinux", "nodeImageVersion": "AKSUbuntu-1804-2020.10.28"`), "linux old-nodes"},
		{pool(`"osSku": "AzureLinux", "nodeImageVersion": "AKSUbuntu-1804gen2-2021.03.31"`), "linux old-nodes"},
		{pool(`"osSku": "AzureLinux", "nodeImageVersion": "AKSUbuntu-2204gen2containerd-202607.13.0"`), "linux"},
		{pool(`"osType": "Windows", "nodeImageVersion": "AKSWindows-2019-17763.1490.201022"`), "windows"},
	} {
		c := mustRead(t, clusterJSON(tc.fields))
		var on []string
		for _, f := range c.On() {
			on = append(on, string(f))
		}
		if got := strings.Join(on, " "); got != tc.on {
			t.Errorf("%s: on is %q, want %q", tc.fields, got, tc.on)
		}
	}
}

func TestReadRefuses(t *testing.T) {
	for _, tc := range []struct{ name, text, want string }{
		{"nothing", "", "empty input"},
		{"text", "ERROR: Please run az login", "not JSON"},
		{"UTF-16", "\xff\xfe{\x00}\x00", "UTF-16"},
		{"HTML", "<html>", "HTML or XML"},
		{"broken JSON", "{\"name\": \"c\",\n\"fqdn\": }", "line 2: not JSON"},
		{"JSON with more behind it", clusterJSON("") + "{}", "not JSON"},
		{"a list of one", "[" + clusterJSON("") + "]", "a list of 1"},
		{"a page", `{"value": [` + clusterJSON("") + `]}`, ".value[0]"},
		{"a template", `{"$schema": "https://schema.management.azure.com/x", "resources": []}`, "a deployment template"},
		{"an error", `{"error": {"code": "ResourceNotFound", "message": "gone"}}`, "ResourceNotFound: gone"},
		{"another resource", `{"type": "Microsoft.Storage/storageAccounts", "location": "westeurope"}`, "JSON of a Microsoft.Storage/storageAccounts"},
		{"anything", `{"hello": "world"}`, "JSON of something else"},
		{"a field of another kind", clusterJSON(`"agentPoolProfiles": 3`), "AgentPoolProfiles is a number"},
		{"another cloud's location", `{"location": "chinaeast2", "fqdn": "c-1.hcp.chinaeast2.azmk8s.io"}`, "belongs to the cloud public, but the region chinaeast2 to china"},
		{"another region's name", `{"location": "westus", "fqdn": "c-1.hcp.westeurope.azmk8s.io"}`, "location says westus"},
		{"names of two clouds", `{"location": "", "fqdn": "c-1.hcp.westeurope.azmk8s.io", "privateFqdn": "c-1.g.privatelink.westeurope.cx.aks.containerservice.azure.us"}`, "cloud"},
		{"a name that is none of AKS", `{"location": "westeurope", "fqdn": "c.example.com"}`, "not a name of an AKS API server"},
		{"a name that is none", `{"location": "westeurope", "fqdn": "c..hcp.westeurope.azmk8s.io"}`, "empty label"},
		{"nowhere", `{"type": "Microsoft.ContainerService/managedClusters"}`, "nothing says where it is"},
		{"an unknown region", `{"type": "Microsoft.ContainerService/managedClusters", "location": "westeurop"}`, `did you mean "westeurope"?`},
		{"a region as tags spell it", `{"type": "Microsoft.ContainerService/managedClusters", "location": "centralfrance"}`, `want "francecentral"`},
		{"ranges that are none", clusterJSON(`"apiServerAccessProfile": {"authorizedIpRanges": ["home"]}`), "authorizedIPRanges"},
		{"a proxy that is none", clusterJSON(`"httpProxyConfig": {"httpProxy": "u:secret@p"}`), "a proxy that is not a URL"},
		{"a registry that is none", clusterJSON(`"bootstrapProfile": {"artifactSource": "Cache", "containerRegistryId": "/a/b*c"}`), "not the id of a registry"},
		{"too much", `{"name": "` + strings.Repeat("x", maxClusterJSON) + `"}`, "longer than 4 MiB"},
	} {
		_, err := Read(strings.NewReader(tc.text))
		if err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: error %v, want %q", tc.name, err, tc.want)
		}
		if err != nil && strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: the error holds a password: %v", tc.name, err)
		}
	}
}

func TestReadPlaces(t *testing.T) {
	for _, tc := range []struct{ text, cloud, region, apiServer string }{
		{clusterJSON(""), "public", "westeurope", "c-1a2b3c4d.hcp.westeurope.azmk8s.io"},
		{"\xef\xbb\xbf" + clusterJSON(""), "public", "westeurope", "c-1a2b3c4d.hcp.westeurope.azmk8s.io"},
		{`{"location": "West Europe", "fqdn": "C-1.hcp.westeurope.azmk8s.io"}`, "public", "westeurope", "c-1.hcp.westeurope.azmk8s.io"},
		{`{"fqdn": "c-1.hcp.usgovvirginia.cx.aks.containerservice.azure.us"}`, "usgov", "usgovvirginia", "c-1.hcp.usgovvirginia.cx.aks.containerservice.azure.us"},
		{`{"location": "usdodeast", "type": "microsoft.containerservice/managedclusters"}`, "usgov", "usdodeast", ""},
		{`{"location": "chinanorth3", "type": "Microsoft.ContainerService/managedClusters"}`, "china", "chinanorth3", ""},
		{`{"location": "moonbase1", "fqdn": "c-1.hcp.moonbase1.azmk8s.io"}`, "public", "moonbase1", "c-1.hcp.moonbase1.azmk8s.io"},
		{`{"location": "eastus", "fqdn": "p.hcp.eastus.azmk8s.io", "privateFqdn": "p.g.privatelink.eastus.azmk8s.io", "apiServerAccessProfile": {"enablePrivateCluster": true, "privateDnsZone": "system"}}`, "public", "eastus", "p.g.privatelink.eastus.azmk8s.io"},
		{`{"location": "eastus", "fqdn": "p.hcp.eastus.azmk8s.io", "privateFqdn": "p.g.privatelink.eastus.azmk8s.io", "apiServerAccessProfile": {"enablePrivateCluster": true, "privateDnsZone": "none"}}`, "public", "eastus", "p.hcp.eastus.azmk8s.io"},
		{`{"location": "eastus", "privateFqdn": "p.sub.private.eastus.azmk8s.io"}`, "public", "eastus", "p.sub.private.eastus.azmk8s.io"},
	} {
		c := mustRead(t, tc.text)
		if c.Cloud.String() != tc.cloud || c.Region != tc.region || c.APIServer().String() != tc.apiServer {
			t.Errorf("%s: %s %s %s, want %s %s %s", tc.text, c.Cloud, c.Region, c.APIServer(), tc.cloud, tc.region, tc.apiServer)
		}
	}
}

func TestCloudAliases(t *testing.T) {
	for text, want := range map[string]Cloud{
		"public": Public, "Azure Global": Public, "Azure public cloud": Public, "AzureCloud": Public, "AzurePublicCloud": Public,
		"china": China, "Microsoft Azure operated by 21Vianet": China, "Azure operated by 21Vianet": China, "AzureChinaCloud": China, "21Vianet": China,
		"usgov": USGov, "Azure US Government": USGov, "Azure Government": USGov, "AzureUSGovernment": USGov, "US Government": USGov, "Government": USGov,
	} {
		if got, err := ParseCloud(text); got != want || err != nil {
			t.Errorf("%q is %v (%v), want %v", text, got, err, want)
		}
	}
	for _, text := range []string{"", "aws", "azure", "AzureGermanCloud"} {
		if c, err := ParseCloud(text); err == nil {
			t.Errorf("%q is %v, want an error", text, c)
		}
	}
}

func TestSourcesAreTheSubnetsOfNodesAndPods(t *testing.T) {
	c := mustRead(t, clusterJSON(`"agentPoolProfiles": [{"vnetSubnetId": "/a", "podSubnetId": "/pods"}, {"vnetSubnetId": "/A"}, {"vnetSubnetId": "/b"}],
		"apiServerAccessProfile": {"subnetId": "/api"}, "hostedSystemProfile": {"systemNodeSubnetId": "/sys"}`))
	if want := []string{"/a", "/pods", "/b", "/sys"}; !slices.Equal(c.Subnets, want) {
		t.Errorf("subnets %v, want %v", c.Subnets, want)
	}
}

// armForm nests a cluster's JSON as the resource manager does.
func armForm(b []byte) ([]byte, bool) {
	var flat map[string]json.RawMessage
	if json.Unmarshal(b, &flat) != nil {
		return nil, false
	}
	nested := map[string]json.RawMessage{}
	for key, v := range flat {
		switch strings.ToLower(key) {
		case "id", "name", "type", "location", "sku", "tags", "identity":
		case "properties", "error", "value", "resources", "$schema", "parameters":
			return nil, false
		default:
			nested[key] = v
			delete(flat, key)
		}
	}
	flat["properties"], _ = json.Marshal(nested)
	b, err := json.Marshal(flat)
	return b, err == nil
}

// FuzzRead: no input makes it panic; both spellings say the same; and whatever
// it reads becomes rules without a placeholder that compile.
func FuzzRead(f *testing.F) {
	files, _ := filepath.Glob(clustersDir + "/example-*.json")
	for _, name := range files {
		b, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Add([]byte(clusterJSON(`"httpProxyConfig": {"httpProxy": "http://10.0.0.1:3128", "noProxy": ["microsoft.com"]}`)))
	f.Add([]byte(clusterJSON(`"networkProfile": {"ipFamilies": ["IPv4", "IPv6"]}`)))
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := Read(bytes.NewReader(b))
		if nested, ok := armForm(b); ok && !hasFoldedTwins(b) {
			n, nestedErr := Read(bytes.NewReader(nested))
			if (err == nil) != (nestedErr == nil) && !strings.Contains(errText(err)+errText(nestedErr), "JSON") {
				t.Fatalf("flat: %v, nested: %v", err, nestedErr)
			}
			if err == nil && nestedErr == nil && !reflect.DeepEqual(c, n) {
				t.Fatalf("flat:   %+v\nnested: %+v", c, n)
			}
		}
		if err != nil {
			return
		}
		res, err := c.Rules(Options{})
		if err != nil {
			t.Fatalf("rules of %+v: %v", c, err)
		}
		if _, err := egress.Compile(res.Egress(), nil); err != nil {
			t.Fatal(err)
		}
	})
}

func errText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

// hasFoldedTwins reports whether an object has two keys that differ in case
// only: which of them counts then depends on their order, which nesting loses.
func hasFoldedTwins(b []byte) bool {
	var v any
	if json.Unmarshal(b, &v) != nil {
		return true
	}
	d := json.NewDecoder(bytes.NewReader(b))
	var stack []map[string]bool
	key := false
	for {
		tok, err := d.Token()
		if err != nil {
			return false
		}
		switch tok {
		case json.Delim('{'):
			stack = append(stack, map[string]bool{})
			key = true
			continue
		case json.Delim('['):
			stack = append(stack, nil)
			key = false
			continue
		case json.Delim('}'), json.Delim(']'):
			stack = stack[:len(stack)-1]
			key = len(stack) > 0 && stack[len(stack)-1] != nil
			continue
		}
		if len(stack) == 0 || stack[len(stack)-1] == nil {
			continue
		}
		if !key {
			key = true
			continue
		}
		folded := strings.ToLower(tok.(string))
		if stack[len(stack)-1][folded] {
			return true
		}
		stack[len(stack)-1][folded] = true
		key = false
	}
}
