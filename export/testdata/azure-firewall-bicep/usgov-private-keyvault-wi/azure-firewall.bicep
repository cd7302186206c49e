// Outbound rules of the AKS cluster aks-gov, written by tidegate export --to azure-firewall-bicep.
// az deployment group create -g GROUP -f azure-firewall.bicep -p firewallPolicyName=NAME

@description('The firewall policy that the rules go into.')
param firewallPolicyName string

resource policy 'Microsoft.Network/firewallPolicies@2024-05-01' existing = {
  name: firewallPolicyName
}

resource rules 'Microsoft.Network/firewallPolicies/ruleCollectionGroups@2024-05-01' = {
  parent: policy
  name: 'tidegate-aks-gov'
  properties: {
    priority: 300
    ruleCollections: [
      {
        ruleCollectionType: 'FirewallPolicyFilterRuleCollection'
        name: 'application'
        priority: 200
        action: {
          type: 'Allow'
        }
        rules: [
          {
            ruleType: 'ApplicationRule'
            name: 'core-mcr-https-443'
            description: 'core/mcr: Microsoft\'s container registry, from which the images of Kubernetes and of every add-on come, at creation, scaling and upgrade.'
            sourceAddresses: [
              '*'
            ]
            protocols: [
              {
                protocolType: 'Https'
                port: 443
              }
            ]
            targetFqdns: [
              'mcr.microsoft.com'
            ]
          }
          {
            ruleType: 'ApplicationRule'
            name: 'core-mcr-data-https-443'
            description: 'core/mcr-data: The layers of the registry\'s images, served by a CDN from hosts of every region.'
            sourceAddresses: [
              '*'
            ]
            protocols: [
              {
                protocolType: 'Https'
                port: 443
              }
            ]
            targetFqdns: [
              '*.data.mcr.microsoft.com'
            ]
          }
          {
            ruleType: 'ApplicationRule'
            name: 'core-arm-https-443'
            description: 'core/arm: Kubernetes asks Azure\'s management API for load balancers, disks, routes and addresses.'
            sourceAddresses: [
              '*'
            ]
            protocols: [
              {
                protocolType: 'Https'
                port: 443
              }
            ]
            targetFqdns: [
              'management.usgovcloudapi.net'
            ]
          }
          {
            ruleType: 'ApplicationRule'
            name: 'core-entra-https-443'
            description: 'core/entra: Tokens of Microsoft Entra ID, without which nothing may talk to Azure.'
            sourceAddresses: [
              '*'
            ]
            protocols: [
              {
                protocolType: 'Https'
                port: 443
              }
            ]
            targetFqdns: [
              'login.microsoftonline.us'
            ]
          }
          {
            ruleType: 'ApplicationRule'
            name: 'core-packages-microsoft-https-443'
            description: 'core/packages-microsoft: Microsoft\'s package repositories (Moby, PowerShell, Azure CLI; on Azure Linux the system\'s own packages).'
            sourceAddresses: [
              '*'
            ]
            protocols: [
              {
                protocolType: 'Https'
                port: 443
              }
            ]
            targetFqdns: [
              'packages.microsoft.com'
            ]
          }
          {
            ruleType: 'ApplicationRule'
            name: 'core-binaries-https-443'
            description: 'core/binaries: The binaries that a node installs when it boots, such as kubenet and Azure CNI, at their former address.'
            sourceAddresses: [
              '*'
            ]
            protocols: [
              {
                protocolType: 'Https'
                port: 443
              }
            ]
            targetFqdns: [
              'acs-mirror.azureedge.net'
            ]
          }
          {
            ruleType: 'ApplicationRule'
            name: 'core-packages-aks-https-443'
            description: 'core/packages-aks: The binaries that a node installs when it boots, such as kubenet and Azure CNI; since spring 2025 node images ask here first.'
            sourceAddresses: [
              '*'
            ]
            protocols: [
              {
                protocolType: 'Https'
                port: 443
              }
            ]
            targetFqdns: [
              'packages.aks.azure.com'
            ]
          }
          {
            ruleType: 'ApplicationRule'
            name: 'workload-identity-entra-https-443'
            description: 'workload-identity/entra: Pods trade their Kubernetes token for one of Microsoft Entra ID.'
            sourceAddresses: [
              '*'
            ]
            protocols: [
              {
                protocolType: 'Https'
                port: 443
              }
            ]
            targetFqdns: [
              'login.microsoftonline.us'
            ]
          }
          {
            ruleType: 'ApplicationRule'
            name: 'keyvault-vaults-https-443'
            description: 'keyvault/vaults: Pods of the Key Vault provider read secrets and certificates from your vaults; a plug-in CA of Istio, secure gateways and application routing read theirs this way too.'
            sourceAddresses: [
              '*'
            ]
            protocols: [
              {
                protocolType: 'Https'
                port: 443
              }
            ]
            targetFqdns: [
              '*.vault.usgovcloudapi.net'
            ]
          }
        ]
      }
    ]
  }
}
