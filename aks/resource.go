package aks

import "encoding/json"

// resource is what matters of Microsoft.ContainerService/managedClusters, in
// the names of API version 2026-05-01. encoding/json matches names without
// regard to case, and so reads both spellings: the resource manager's
// (privateFQDN) and the command line's (privateFqdn). Keys of maps it leaves
// alone; those are folded by addon.
//
// What says whether something is on is a pointer where absent and false differ.
type resource struct {
	ID         string
	Name       string
	Type       string
	Location   string
	SKU        struct{ Name string }
	Properties json.RawMessage // the resource manager's form nests everything below in it

	FQDN                   string
	PrivateFQDN            string
	KubernetesVersion      string
	CurrentVersion         string `json:"currentKubernetesVersion"`
	NodeResourceGroup      string
	IdentityProfile        map[string]*struct{ ObjectID string }
	StorageProfile         struct{ FileCSIDriver, BlobCSIDriver enabled }
	AgentPoolProfiles      []pool
	AddonProfiles          map[string]*addon
	APIServerAccessProfile struct {
		EnablePrivateCluster           bool
		EnablePrivateClusterPublicFQDN bool
		EnableVnetIntegration          bool
		PrivateDNSZone                 string
		AuthorizedIPRanges             []string
	}
	AutoUpgradeProfile   struct{ NodeOSUpgradeChannel string }
	AzureMonitorProfile  monitorProfile
	BootstrapProfile     struct{ ArtifactSource, ContainerRegistryID string }
	HTTPProxyConfig      *httpProxy
	HostedSystemProfile  struct{ SystemNodeSubnetID, NodeSubnetID string }
	IngressProfile       struct{ WebAppRouting enabled }
	MetricsProfile       struct{ CostAnalysis enabled }
	NetworkProfile       networkProfile
	NodeProvisioningMode struct{ Mode string } `json:"nodeProvisioningProfile"`
	OIDCIssuerProfile    struct{ Enabled bool }
	SecurityProfile      securityProfile
	ServiceMeshProfile   serviceMesh

	AIToolchainOperatorProfile enabled
	WorkloadAutoScalerProfile  struct{ KEDA, VerticalPodAutoscaler enabled }
}

type enabled struct{ Enabled bool }

type addon struct {
	Enabled bool
	Config  map[string]any
}

type pool struct {
	Name                     string
	VMSize                   string
	OSType                   string
	OSSKU                    string
	Mode                     string
	NodeImageVersion         string
	EnableNodePublicIP       bool
	VnetSubnetID             string
	PodSubnetID              string
	GPUInstanceProfile       string
	GPUProfile               gpuProfile
	VirtualMachinesProfile   struct{ Scale scale }
	VirtualMachineNodeStatus []struct{ Size string } `json:"virtualMachineNodesStatus"`
}

type gpuProfile struct {
	Driver string
	NVIDIA struct{ ManagementMode string }
}

// scale holds the sizes of a pool of single machines, whose vmSize is null.
// The autoscaler's is a list in some API versions and an object in others.
type scale struct {
	Manual    []struct{ Size string }
	Autoscale json.RawMessage
}

type monitorProfile struct {
	Metrics           enabled
	ContainerInsights enabled
	AppMonitoring     struct{ AutoInstrumentation enabled }
}

type networkProfile struct {
	OutboundType               string
	NetworkPlugin              string
	IPFamilies                 []string
	NetworkDataplane           string
	StaticEgressGatewayProfile enabled
}

type securityProfile struct {
	WorkloadIdentity enabled
	AzureDefender    defender
	Defender         defender
}

type defender struct {
	Enabled                         bool
	LogAnalyticsWorkspaceResourceID string
	SecurityMonitoring              *enabled
	SecurityGating                  enabled
}

type serviceMesh struct {
	Mode  string
	Istio struct {
		Components           struct{ IngressGateways []enabled }
		CertificateAuthority struct {
			Plugin *struct{ KeyVaultID string }
		}
	}
}

type httpProxy struct {
	Enabled    *bool
	HTTPProxy  string
	HTTPSProxy string
	NoProxy    []string
}

// sizes are the machine sizes of a pool, wherever its kind keeps them.
func (p *pool) sizes() []string {
	var out []string
	add := func(s string) {
		if s != "" {
			out = append(out, s)
		}
	}
	add(p.VMSize)
	for _, m := range p.VirtualMachinesProfile.Scale.Manual {
		add(m.Size)
	}
	for _, s := range p.VirtualMachineNodeStatus {
		add(s.Size)
	}
	type sized struct{ Size string }
	var many []sized
	var one sized
	raw := p.VirtualMachinesProfile.Scale.Autoscale
	if json.Unmarshal(raw, &many) == nil {
		for _, s := range many {
			add(s.Size)
		}
	} else if json.Unmarshal(raw, &one) == nil {
		add(one.Size)
	}
	return out
}
