package export

import (
	"fmt"
	"strings"

	"tidegate.io/tidegate/egress"
)

// Format is a target.
type Format struct {
	Name   string
	Title  string   // what it is written for
	Limits []string // what is true of every output, besides what it cannot express; sentences

	can   can
	write func(*job) []File
}

var (
	web       = []egress.Proto{egress.HTTP, egress.HTTPS}
	transport = []egress.Proto{egress.TCP, egress.UDP}
	allProtos = []egress.Proto{egress.TCP, egress.UDP, egress.HTTP, egress.HTTPS}

	everything = can{protos: allProtos, names: shapeAll, dnsNames: shapeAll, nets: true, nets6: true, tags: true, sources: true, ranges: true}
)

// learned is the limit of every target that turns names into addresses.
const learned = "Names are judged by the addresses that DNS gave for them: every other name on the same address, of which a CDN has many, passes too."

// Limits of targets that stand in the way of the traffic, as the lab shows them.
const (
	processEnds  = "Connections end with the process."
	onlyIPv4     = "IPv6 is refused, and names are looked up for IPv4 only."
	noName       = "Who dials the API server's address without its name, as clients in pods do, is refused (tidegate webhook gives them the name)."
	secondHello  = "A second ClientHello, which a server may ask for, is not looked at: it can show another name to the same server."
	oddHellos    = "An odd ClientHello (several names, a NUL in one, a record before it) can pass, to the server of its first name only."
	guardedNames = "A name that leads to a private or special address is refused."
	follows      = "An allowed name is followed wherever DNS leads, to private addresses too."
	notDNS       = "Which names may be looked up is another's business: that of the formats dnsmasq and unbound."
)

// Formats returns every target, in the order in which people are shown them.
func Formats() []*Format {
	out := make([]*Format, len(formats))
	for i := range formats {
		out[i] = &formats[i]
	}
	return out
}

// Find returns the format of that name.
func Find(name string) (*Format, error) {
	var names []string
	for i := range formats {
		if formats[i].Name == name {
			return &formats[i], nil
		}
		names = append(names, formats[i].Name)
	}
	return nil, fmt.Errorf("format %q: want one of %s", name, strings.Join(names, ", "))
}

// Cannot says in words what the target cannot express.
func (f *Format) Cannot() []string {
	var out []string
	c := f.can
	for _, p := range allProtos {
		spoken := false
		for _, q := range c.protos {
			spoken = spoken || p == q
		}
		if !spoken {
			out = append(out, p.String()+" rules")
		}
	}
	for _, of := range []struct {
		has   shape
		words string
		ps    []egress.Proto
	}{{c.names, "http and https", web}, {c.dnsNames, "tcp and udp", transport}} {
		if lacks := of.has.lacks(); lacks != "" && overlap(c.protos, of.ps) {
			out = append(out, lacks+" in "+of.words+" rules")
		}
	}
	if c.spelling.not != "" {
		out = append(out, c.spelling.not)
	}
	for _, x := range []struct {
		has   bool
		words string
	}{
		{c.nets, "IPv4 addresses"}, {c.nets6, "IPv6 addresses"}, {c.tags, "service tags"},
		{c.sources, "rules for some clients only"}, {c.ranges, "ranges of more than 16 ports"},
	} {
		if !x.has {
			out = append(out, x.words)
		}
	}
	return out
}

func overlap(a, b []egress.Proto) bool {
	for _, x := range a {
		for _, y := range b {
			if x == y {
				return true
			}
		}
	}
	return false
}

// formats is the table: a new target is a line here and a file beside.
var formats = []Format{
	{
		Name: "azure-firewall", Title: "Azure Firewall Policy: a rule collection group as an ARM template",
		Limits: azureLimits, can: azureCan, write: writeAzureARM,
	},
	{
		Name: "azure-firewall-bicep", Title: "the same in Bicep",
		Limits: azureLimits, can: azureCan, write: writeAzureBicep,
	},
	{
		Name: "azure-firewall-terraform", Title: "the same for Terraform's azurerm provider",
		Limits: azureLimits, can: azureCan, write: writeAzureTerraform,
	},
	{Name: "csv", Title: "a list: comma-separated values", can: everything, write: writeCSV},
	{Name: "json", Title: "a list: JSON", can: everything, write: writeJSON},
	{Name: "yaml", Title: "a list: YAML", can: everything, write: writeYAML},
	{Name: "markdown", Title: "a list: a table for people", can: everything, write: writeMarkdown},
	{
		Name: "paloalto", Title: "Palo Alto external dynamic lists, of URLs and of addresses, one for each service",
		Limits: []string{
			"The security rule that uses a list has to hold its service, which is in the file's name, and its clients.",
			"Use url-*.txt as lists of the type URL, never of the type Domain, which does not open anything.",
		},
		can:   can{protos: allProtos, names: shapeExact | shapeBelow | shapeLabel, nets: true, nets6: true, ranges: true},
		write: writePaloAlto,
	},
	{
		Name: "fortigate", Title: "FortiGate: addresses, services and policies",
		Limits: []string{learned, "The clients have to use the same DNS servers as the firewall, or DNS that passes it; names are opened by IPv4 only."},
		can:    can{protos: allProtos, names: shapeExact | shapeBelow, dnsNames: shapeExact | shapeBelow, nets: true, sources: true, ranges: true},
		write:  writeFortiGate,
	},
	{
		Name: "cilium", Title: "CiliumClusterwideNetworkPolicy, as AKS's Advanced Container Networking Services take it",
		Limits: ciliumLimits, can: ciliumCan, write: writeCiliumClusterwide,
	},
	{
		Name: "cilium-namespace", Title: "CiliumNetworkPolicy, for one namespace",
		Limits: ciliumLimits, can: ciliumCan, write: writeCiliumNamespaced,
	},
	{
		Name: "squid", Title: "Squid 5, in the way of the traffic: HTTP by host, TLS by its ClientHello",
		Limits: []string{processEnds, "A name is believed where Squid's resolver leads to the address that the client dialled; with other resolvers good connections are refused.", "A ClientHello that comes in many pieces may be refused.", noName, secondHello, oddHellos, guardedNames, notDNS},
		can:    can{protos: web, names: shapeAll, sources: true, ranges: true}, write: writeSquid,
	},
	{
		Name: "haproxy", Title: "HAProxy 2.6, in the way of the traffic",
		Limits: []string{processEnds, onlyIPv4, noName, "A ClientHello of more than 15 KB, or in more than a few records, is refused.", secondHello, oddHellos, guardedNames, notDNS},
		can:    can{protos: web, names: shapeAll, sources: true}, write: writeHAProxy,
	},
	{
		Name: "nginx", Title: "nginx's stream module, in the way of the traffic",
		Limits: []string{processEnds, onlyIPv4, noName, "A ClientHello of more than 16 KB is refused.", secondHello, oddHellos, follows, notDNS},
		can:    can{protos: []egress.Proto{egress.HTTPS}, names: shapeAll}, write: writeNginx,
	},
	{
		Name: "envoy", Title: "Envoy, in the way of the traffic: a bootstrap configuration",
		Limits: []string{"Connections end with the process.", "Names are looked up for IPv4 only.", "It has been checked against Envoy's schema, never by a running Envoy."},
		can: can{
			protos: []egress.Proto{egress.TCP, egress.HTTP, egress.HTTPS}, names: shapeExact | shapeBelow,
			nets: true, nets6: true, sources: true,
		},
		write: writeEnvoy,
	},
	{
		Name: "nftables", Title: "nftables on a Linux router; names are sets that a resolver fills (--to dnsmasq)",
		Limits: []string{learned, "All clients have to ask the resolver that fills the sets.", "An address that a name had stays open for a day after its last new connection.", guardedNames, "Without --from everything that is forwarded is judged."},
		can:    nftCan, write: writeNFTables,
	},
	{
		Name: "dnsmasq", Title: "dnsmasq that answers for the rules' names only, and fills the sets of --to nftables",
		Limits: []string{dnsOnly, "Names inside the cluster are not its business: keep CoreDNS before it."},
		can:    can{protos: allProtos, names: shapeExact | shapeBelow, dnsNames: shapeExact | shapeBelow, ranges: true}, write: writeDnsmasq,
	},
	{
		Name: "unbound", Title: "Unbound with a response policy zone that answers for the rules' names only",
		Limits: []string{dnsOnly, "Names inside the cluster are not its business: keep CoreDNS before it."},
		can:    can{protos: allProtos, names: shapeExact | shapeBelow, dnsNames: shapeExact | shapeBelow, ranges: true, spelling: rpzNames}, write: writeUnbound,
	},
	{
		Name: "nsg", Title: "Azure network security group, an ARM template: addresses and service tags",
		Limits: []string{"Names it does not know at all: a cluster needs a firewall for them.", "What goes to 168.63.129.16 passes every group unless AzurePlatformDNS is denied."},
		can:    can{protos: transport, nets: true, tags: true, sources: true, ranges: true}, write: writeNSG,
	},
	{
		Name: "clusternetworkpolicy", Title: "Kubernetes ClusterNetworkPolicy (v1alpha2, experimental channel) with domain names",
		Limits: []string{learned, "DNS to servers outside the cluster needs a rule of its own.", "Pods on the host's network are not selected."},
		can:    can{protos: allProtos, names: shapeExact | shapeBelow, dnsNames: shapeExact | shapeBelow, nets: true, nets6: true, ranges: true, spelling: cnpNames}, write: writeClusterNetworkPolicy,
	},
	{
		Name: "istio", Title: "Istio ServiceEntry and Sidecar, for one namespace",
		Limits: []string{"A sidecar is inside the pod, and no boundary for what runs there.", "Wildcards need the resolution DYNAMIC_DNS, of Istio 1.31."},
		can:    can{protos: []egress.Proto{egress.TCP, egress.HTTP, egress.HTTPS}, names: shapeExact | shapeBelow, nets: true, nets6: true}, write: writeIstio,
	},
	{
		Name: "ovn", Title: "OVN-Kubernetes EgressFirewall, for one namespace",
		Limits: []string{learned},
		can:    can{protos: allProtos, names: shapeExact, dnsNames: shapeExact, nets: true, nets6: true, spelling: ovnNames}, write: writeEgressFirewall,
	},
	{
		Name: "networkpolicy", Title: "Kubernetes NetworkPolicy, for one namespace: addresses only",
		Limits: []string{"Pods on the host's network are not selected."},
		can:    can{protos: transport, nets: true, nets6: true, ranges: true}, write: writeNetworkPolicy,
	},
}

// dnsOnly is the limit of DNS servers.
const dnsOnly = "It says which names may be looked up. That opens and closes no address: whoever knows one needs no name."

var (
	ciliumCan    = can{protos: allProtos, names: shapeExact | shapeBelow | shapeLabel, dnsNames: shapeExact | shapeBelow | shapeLabel, nets: true, nets6: true, ranges: true}
	ciliumLimits = []string{
		learned,
		"DNS itself is open for every name, which Cilium has to see to learn from; narrow the pattern * to close it.",
		"Traffic inside the cluster is permitted by it. Versions before 1.19 take *.a.b for one label.",
		"Pods on the host's network are not selected.",
	}
)
