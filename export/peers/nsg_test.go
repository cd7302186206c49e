package peers

import (
	"errors"
	"fmt"
	"testing"

	"github.com/Azure/azure-sdk-for-go/sdk/resourcemanager/network/armnetwork/v9"
)

// maxDescription is what a rule of a security group has room for.
const maxDescription = 140

func readSecurityGroup(data []byte) error {
	props, err := properties(data, "Microsoft.Network/networkSecurityGroups")
	if err != nil {
		return err
	}
	var g armnetwork.SecurityGroupPropertiesFormat
	errs := []error{roundTrip(props, &g)}
	names, priorities := map[string]bool{}, map[int32]bool{}
	for _, r := range g.SecurityRules {
		p, name := r.Properties, deref(r.Name)
		errs = append(errs, named(r.Name, names), between(name+": priority", p.Priority, 100, 4096),
			oneOf(name+": protocol", p.Protocol, armnetwork.PossibleSecurityRuleProtocolValues()),
			oneOf(name+": direction", p.Direction, armnetwork.PossibleSecurityRuleDirectionValues()),
			oneOf(name+": access", p.Access, armnetwork.PossibleSecurityRuleAccessValues()),
			addresses(name, p.SourceAddressPrefixes), addresses(name, p.DestinationAddressPrefixes))
		if p.Priority != nil && priorities[*p.Priority] {
			errs = append(errs, fmt.Errorf("two rules of priority %d", *p.Priority))
		}
		if p.Priority != nil {
			priorities[*p.Priority] = true
		}
		if len(deref(p.Description)) > maxDescription {
			errs = append(errs, fmt.Errorf("%s: description of %d bytes", name, len(*p.Description)))
		}
		for _, side := range []struct {
			one  *string
			many []*string
		}{{p.SourceAddressPrefix, p.SourceAddressPrefixes}, {p.DestinationAddressPrefix, p.DestinationAddressPrefixes}} {
			if (side.one == nil) == (len(side.many) == 0) {
				errs = append(errs, fmt.Errorf("%s: want either one prefix or several", name))
			} else if side.one != nil {
				errs = append(errs, addresses(name, []*string{side.one}))
			}
		}
	}
	if n := len(g.SecurityRules); n == 0 || deref(g.SecurityRules[n-1].Properties.DestinationAddressPrefix) != "Internet" || *g.SecurityRules[n-1].Properties.Access != armnetwork.SecurityRuleAccessDeny {
		errs = append(errs, errors.New("the last rule does not deny the internet"))
	}
	return errors.Join(errs...)
}

func TestSecurityGroup(t *testing.T) {
	outputs(t, "nsg", "nsg.json", func(_ string, data []byte) error { return readSecurityGroup(data) })
	refuses(t, everyShape(t, "nsg", "nsg.json"), []spoil{
		{`"destinationPortRange"`, `"destinationPort"`},
		{`"protocol": "Tcp"`, `"protocol": "Sctp"`},
		{`"direction": "Outbound"`, `"direction": "Egress"`},
		{`"access": "Deny"`, `"access": "Reject"`},
		{`"priority": 1001`, `"priority": 1000`},
		{`"priority": 1001`, `"priority": 4097`},
		{`"20.50.0.0/16"`, `"one.exact.example"`},
		{`"Internet"`, `"VirtualNetwork"`},
	}, readSecurityGroup)
}
