// Outbound rules of the AKS cluster aks-ni, written by tidegate export --to azure-firewall-bicep.
// az deployment group create -g GROUP -f azure-firewall.bicep -p firewallPolicyName=NAME

@description('The firewall policy that the rules go into.')
param firewallPolicyName string

resource policy 'Microsoft.Network/firewallPolicies@2024-05-01' existing = {
  name: firewallPolicyName
}

resource rules 'Microsoft.Network/firewallPolicies/ruleCollectionGroups@2024-05-01' = {
  parent: policy
  name: 'tidegate-aks-ni'
  properties: {
    priority: 300
    ruleCollections: [
    ]
  }
}
