package peers

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/Azure/azure-sdk-for-go/sdk/resourcemanager/network/armnetwork/v9"
	"github.com/google/go-cmp/cmp"
)

// The JSON schema of the resource manager is in no package. The types of
// Azure's SDK are made from the same description of the API: a key that they do
// not know is gone after a round trip, and they list what an enumeration holds.
// What only the service itself refuses is held here, from its documentation.

// template is a deployment template, as far as export writes it.
type template struct {
	Schema         string `json:"$schema"`
	ContentVersion string
	Metadata       map[string]string
	Parameters     map[string]struct {
		Type     string
		Metadata map[string]string
	}
	Resources []struct {
		Type, APIVersion, Name, Location string
		Properties                       json.RawMessage
	}
}

var (
	expressions = []string{"[parameters('location')]"}
	parentName  = regexp.MustCompile(`^\[concat\(parameters\('firewallPolicyName'\), '/[A-Za-z0-9._-]+'\)\]$`)
	apiVersion  = regexp.MustCompile(`^\d{4}-\d\d-\d\d$`)
)

// properties returns what the one resource of a template is.
func properties(data []byte, kind string) (json.RawMessage, error) {
	var doc template
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	if err := d.Decode(&doc); err != nil {
		return nil, err
	}
	if len(doc.Resources) != 1 || doc.Resources[0].Type != kind || !apiVersion.MatchString(doc.Resources[0].APIVersion) {
		return nil, fmt.Errorf("not one %s with a version of the API", kind)
	}
	// A string in brackets is an expression, unless its bracket is doubled.
	var all any
	if err := json.Unmarshal(data, &all); err != nil {
		return nil, err
	}
	var errs []error
	eachString(all, func(s string) {
		if strings.HasPrefix(s, "[") && !strings.HasPrefix(s, "[[") && !slices.Contains(expressions, s) && !parentName.MatchString(s) {
			errs = append(errs, fmt.Errorf("%q would be evaluated", s))
		}
	})
	return doc.Resources[0].Properties, errors.Join(errs...)
}

func eachString(v any, f func(string)) {
	switch v := v.(type) {
	case string:
		f(v)
	case []any:
		for _, x := range v {
			eachString(x, f)
		}
	case map[string]any:
		for _, x := range v {
			eachString(x, f)
		}
	}
}

// roundTrip reads into the SDK's type and back.
func roundTrip(data []byte, into any) error {
	if err := json.Unmarshal(data, into); err != nil {
		return err
	}
	again, err := json.Marshal(into)
	if err != nil {
		return err
	}
	var want, got any
	if err := errors.Join(json.Unmarshal(data, &want), json.Unmarshal(again, &got)); err != nil {
		return err
	}
	if diff := cmp.Diff(want, got); diff != "" {
		return fmt.Errorf("the SDK's type loses or changes: %s", diff)
	}
	return nil
}

func between(what string, n *int32, low, high int32) error {
	if n == nil || *n < low || *n > high {
		return fmt.Errorf("%s: not from %d to %d", what, low, high)
	}
	return nil
}

func oneOf[T comparable](what string, v *T, want []T) error {
	if v == nil || !slices.Contains(want, *v) {
		return fmt.Errorf("%s: not one of %v", what, want)
	}
	return nil
}

var azureName = regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9._-]{0,78}[A-Za-z0-9_])?$`)

func named(name *string, seen map[string]bool) error {
	if name == nil || !azureName.MatchString(*name) || seen[strings.ToLower(*name)] {
		return fmt.Errorf("name %q: not one, or there twice", deref(name))
	}
	seen[strings.ToLower(*name)] = true
	return nil
}

func deref(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}

// addresses holds that each is a star, an IPv4 address or prefix, or a service tag.
func addresses(what string, list []*string) error {
	for _, s := range list {
		_, notAddress := netip.ParseAddr(*s)
		p, notPrefix := netip.ParsePrefix(*s)
		switch {
		case *s == "*", notAddress == nil, notPrefix == nil && p == p.Masked(), serviceTag.MatchString(*s):
		default:
			return fmt.Errorf("%s: %q is no address, prefix or service tag", what, *s)
		}
	}
	return nil
}

var serviceTag = regexp.MustCompile(`^[A-Z][A-Za-z]+(\.[A-Za-z0-9]+)?$`)

func readFirewallPolicy(data []byte) error {
	props, err := properties(data, "Microsoft.Network/firewallPolicies/ruleCollectionGroups")
	if err != nil {
		return err
	}
	var g armnetwork.FirewallPolicyRuleCollectionGroupProperties
	errs := []error{roundTrip(props, &g), between("priority of the group", g.Priority, 100, 65000)}
	names, priorities := map[string]bool{}, map[int32]bool{}
	for _, c := range g.RuleCollections {
		collection, ok := c.(*armnetwork.FirewallPolicyFilterRuleCollection)
		if !ok || collection.Action == nil {
			return errors.Join(append(errs, fmt.Errorf("a collection of type %T", c))...)
		}
		errs = append(errs, named(collection.Name, names), between("priority of a collection", collection.Priority, 100, 65000),
			oneOf("action", collection.Action.Type, armnetwork.PossibleFirewallPolicyFilterRuleCollectionActionTypeValues()))
		if collection.Priority != nil && priorities[*collection.Priority] {
			errs = append(errs, fmt.Errorf("two collections of priority %d", *collection.Priority))
		}
		priorities[*collection.Priority] = true
		for _, r := range collection.Rules {
			errs = append(errs, named(r.GetFirewallPolicyRule().Name, names), readFirewallRule(*collection.Name, r))
		}
	}
	return errors.Join(errs...)
}

func readFirewallRule(collection string, r armnetwork.FirewallPolicyRuleClassification) error {
	var errs []error
	switch r := r.(type) {
	case *armnetwork.ApplicationRule:
		name := deref(r.Name)
		for _, p := range r.Protocols {
			errs = append(errs, between(name+": port", p.Port, 1, 64000),
				oneOf(name+": protocol", p.ProtocolType, armnetwork.PossibleFirewallPolicyRuleApplicationProtocolTypeValues()))
		}
		errs = append(errs, addresses(name, r.SourceAddresses))
		if collection != "application" || len(r.Protocols) == 0 || len(r.SourceAddresses) == 0 || (len(r.TargetFqdns) == 0) == (len(r.FqdnTags) == 0) {
			errs = append(errs, fmt.Errorf("application rule %s is not whole, or in the wrong collection", name))
		}
	case *armnetwork.Rule:
		name := deref(r.Name)
		for _, p := range r.IPProtocols {
			errs = append(errs, oneOf(name+": protocol", p, armnetwork.PossibleFirewallPolicyRuleNetworkProtocolValues()))
		}
		for _, n := range r.DestinationFqdns {
			if strings.Contains(*n, "*") {
				errs = append(errs, fmt.Errorf("network rule %s has the wildcard %s", name, *n))
			}
		}
		errs = append(errs, addresses(name, r.SourceAddresses), addresses(name, r.DestinationAddresses))
		if collection != "network" || len(r.IPProtocols) == 0 || len(r.SourceAddresses) == 0 || len(r.DestinationPorts) == 0 || (len(r.DestinationFqdns) == 0) == (len(r.DestinationAddresses) == 0) {
			errs = append(errs, fmt.Errorf("network rule %s is not whole, or in the wrong collection", name))
		}
	default:
		errs = append(errs, fmt.Errorf("a rule of type %T", r))
	}
	return errors.Join(errs...)
}

func TestFirewallPolicy(t *testing.T) {
	outputs(t, "azure-firewall", "azure-firewall.json", func(_ string, data []byte) error { return readFirewallPolicy(data) })
	refuses(t, everyShape(t, "azure-firewall", "azure-firewall.json"), []spoil{
		{`"targetFqdns"`, `"targetFQDNs"`},
		{`"destinationFqdns"`, `"destinationFqdn"`},
		{`"priority": 300`, `"priority": 99`},
		{`"priority": 200`, `"priority": 100`},
		{`"protocolType": "Https"`, `"protocolType": "Tls"`},
		{`"port": 443`, `"port": 65000`},
		{`"UDP"`, `"SCTP"`},
		{`"ruleType": "ApplicationRule"`, `"ruleType": "WebRule"`},
		{`"type": "Allow"`, `"type": "Permit"`},
		{`"one.exact.example"`, `"[resourceGroup().id]"`},
		{`"ntp.example.com"`, `"*.example.com"`},
		{`"20.50.0.0/16"`, `"20.50.0.0/160"`},
		{`"resources"`, `"ressources"`},
		{`"name-exact-http-80"`, `"name-exact-https-443"`},
	}, readFirewallPolicy)
}
