package isolated

import (
	"bytes"
	"crypto/sha1" //nolint:gosec // RFC 9562's version 5 is made with it; nothing secret is
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"tidegate.io/tidegate/internal/bicep"
)

// resource is one of a template. Names, ids and values are literals: what is to
// be deployed can be read, and nothing in it is evaluated.
type resource struct {
	symbol  string // of Bicep, and how others depend on it
	kind    string // its type
	version string // of the API
	name    string // of itself; ARM has its parent's in front
	parent  string // a symbol
	scope   string // a symbol, of what a role is assigned on
	place   string // location; empty for none
	sku     string
	props   any
	after   []string // symbols
}

// acrPull is the id that the role has in every subscription.
const acrPull = "7f951dda-4ed3-4680-a7ca-43fe172d538d"

type object map[string]any

// resources are what a registry of one's own takes. How the cluster is told is
// not among them: it is a matter of order, which a template has not.
func (p *Plan) resources() ([]resource, error) {
	if p.Managed {
		return nil, errors.New("the registry is AKS's to make and keep, so there is nothing to deploy; give --registry NAME for one of your own")
	}
	at := &p.place
	zone := "/subscriptions/" + at.subscription + "/resourceGroups/" + at.registryG + "/providers/Microsoft.Network/privateDnsZones/" + at.zone
	rs := []resource{
		{symbol: "registry", kind: "Microsoft.ContainerRegistry/registries", version: "2023-07-01", name: at.registry, place: at.region, sku: "Premium",
			props: object{"publicNetworkAccess": "Disabled", "networkRuleBypassOptions": "AzureServices", "adminUserEnabled": false}},
		{symbol: "cacheRule", kind: "Microsoft.ContainerRegistry/registries/cacheRules", version: "2023-07-01", name: p.Rule.Name, parent: "registry",
			props: object{"sourceRepository": p.Rule.Source, "targetRepository": p.Rule.Target}},
		{symbol: "endpoint", kind: "Microsoft.Network/privateEndpoints", version: "2024-05-01", name: endpointName(at), place: at.region, after: []string{"registry"},
			props: object{"subnet": object{"id": at.subnet}, "privateLinkServiceConnections": []any{
				object{"name": endpointName(at), "properties": object{"privateLinkServiceId": at.registryID, "groupIds": []string{"registry"}}},
			}}},
		{symbol: "zone", kind: "Microsoft.Network/privateDnsZones", version: "2020-06-01", name: at.zone, place: "global"},
		{symbol: "link", kind: "Microsoft.Network/privateDnsZones/virtualNetworkLinks", version: "2020-06-01", name: at.cluster, parent: "zone", place: "global",
			props: object{"registrationEnabled": false, "virtualNetwork": object{"id": at.network}}},
		{symbol: "records", kind: "Microsoft.Network/privateEndpoints/privateDnsZoneGroups", version: "2024-05-01", name: "default", parent: "endpoint", after: []string{"zone"},
			props: object{"privateDnsZoneConfigs": []any{object{"name": "registry", "properties": object{"privateDnsZoneId": zone}}}}},
	}
	if at.kubelet == "" {
		return nil, errors.New("the kubelet's identity is not in the cluster's file, so that the role cannot be written; use the commands, which ask for it")
	}
	role := "/subscriptions/" + at.subscription + "/providers/Microsoft.Authorization/roleDefinitions/" + acrPull
	return append(rs, resource{
		symbol: "pull", kind: "Microsoft.Authorization/roleAssignments", version: "2022-04-01", name: roleName(at.registryID, at.kubelet, acrPull), scope: "registry",
		props: object{"roleDefinitionId": role, "principalId": at.kubelet, "principalType": "ServicePrincipal"},
	}), nil
}

// roleName is the assignment's own id: the same for the same assignment, so that
// deploying twice changes nothing (RFC 9562 section 5.5, in the URL namespace).
func roleName(parts ...string) string {
	namespace := []byte{0x6b, 0xa7, 0xb8, 0x11, 0x9d, 0xad, 0x11, 0xd1, 0x80, 0xb4, 0x00, 0xc0, 0x4f, 0xd4, 0x30, 0xc8}
	h := sha1.New() //nolint:gosec // see the import
	h.Write(namespace)
	h.Write([]byte(strings.ToLower(strings.Join(parts, "|"))))
	u := h.Sum(nil)[:16]
	u[6], u[8] = u[6]&0x0f|0x50, u[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", u[:4], u[4:6], u[6:8], u[8:10], u[10:])
}

// armTemplate is in the order in which people read one.
type armTemplate struct {
	Schema         string            `json:"$schema"`
	ContentVersion string            `json:"contentVersion"`
	Metadata       map[string]string `json:"metadata"`
	Resources      []armResource     `json:"resources"`
}

type armResource struct {
	Type       string   `json:"type"`
	APIVersion string   `json:"apiVersion"`
	Scope      string   `json:"scope,omitempty"`
	Name       string   `json:"name"`
	Location   string   `json:"location,omitempty"`
	SKU        object   `json:"sku,omitempty"`
	Properties any      `json:"properties"`
	DependsOn  []string `json:"dependsOn,omitempty"`
}

const armSchema = "https://schema.management.azure.com/schemas/2019-04-01/deploymentTemplate.json#"

func (p *Plan) heading() string {
	return "A private registry for the isolated cluster " + p.place.cluster + ", into the resource group " + p.place.registryG + "."
}

// ARM returns a deployment template of what has to be there before the cluster
// is told: az deployment group create -f FILE.
func (p *Plan) ARM() ([]byte, error) {
	rs, err := p.resources()
	if err != nil {
		return nil, err
	}
	names, kinds := map[string]string{}, map[string]string{}
	t := armTemplate{armSchema, "1.0.0.0", map[string]string{"description": p.heading()}, nil}
	for _, r := range rs {
		full := r.name
		a := armResource{Type: r.kind, APIVersion: r.version, Location: r.place, Properties: r.properties()}
		for _, s := range append([]string{r.parent, r.scope}, r.after...) {
			if s != "" {
				a.DependsOn = append(a.DependsOn, armID(kinds[s], names[s]))
			}
		}
		if r.parent != "" {
			full = names[r.parent] + "/" + full
		}
		if r.scope != "" {
			a.Scope = kinds[r.scope] + "/" + names[r.scope]
		}
		if r.sku != "" {
			a.SKU = object{"name": r.sku}
		}
		a.Name, names[r.symbol], kinds[r.symbol] = full, full, r.kind
		t.Resources = append(t.Resources, a)
	}
	return encode(t)
}

// armID is the one expression there is: of the id of a resource in the template.
func armID(kind, name string) string {
	return "[resourceId('" + kind + "', '" + strings.ReplaceAll(name, "/", "', '") + "')]"
}

func (r *resource) properties() any {
	if r.props == nil {
		return object{}
	}
	return r.props
}

// Bicep returns the same as [Plan.ARM] has, in Bicep.
func (p *Plan) Bicep() ([]byte, error) {
	rs, err := p.resources()
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	fmt.Fprintf(&b, "// %s\n// az deployment group create --resource-group %s --template-file isolated.bicep\n", p.heading(), p.place.registryG)
	for _, r := range rs {
		fmt.Fprintf(&b, "\nresource %s %s = {\n", r.symbol, bicep.String(r.kind+"@"+r.version))
		for _, ref := range []struct{ key, symbol string }{{"parent", r.parent}, {"scope", r.scope}} {
			if ref.symbol != "" {
				fmt.Fprintf(&b, "  %s: %s\n", ref.key, ref.symbol)
			}
		}
		fmt.Fprintf(&b, "  name: %s\n", bicep.String(r.name))
		if r.place != "" {
			fmt.Fprintf(&b, "  location: %s\n", bicep.String(r.place))
		}
		if r.sku != "" {
			fmt.Fprintf(&b, "  sku: {\n    name: %s\n  }\n", bicep.String(r.sku))
		}
		props, err := encode(r.properties())
		if err != nil {
			return nil, err
		}
		fmt.Fprintf(&b, "  properties: %s\n", bicep.Value(props, "  "))
		if len(r.after) > 0 {
			fmt.Fprintf(&b, "  dependsOn: [\n    %s\n  ]\n", strings.Join(r.after, "\n    "))
		}
		b.WriteString("}\n")
	}
	return b.Bytes(), nil
}

func encode(v any) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	err := e.Encode(v)
	return b.Bytes(), err
}
