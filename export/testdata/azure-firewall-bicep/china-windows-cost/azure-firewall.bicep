// Outbound rules of the AKS cluster aks-cn, written by tidegate export --to azure-firewall-bicep.
// az deployment group create -g GROUP -f azure-firewall.bicep -p firewallPolicyName=NAME

@description('The firewall policy that the rules go into.')
param firewallPolicyName string

resource policy 'Microsoft.Network/firewallPolicies@2024-05-01' existing = {
  name: firewallPolicyName
}

resource rules 'Microsoft.Network/firewallPolicies/ruleCollectionGroups@2024-05-01' = {
  parent: policy
  name: 'tidegate-aks-cn'
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
            name: 'core-apiserver-https-443'
            description: 'core/apiserver: Nodes talk to the API server by its name; Konnectivity shares the port and is told apart by its ALPN, which must pass untouched.'
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
              'aks-cn-9z8y7x6w.hcp.chinanorth3.cx.prod.service.azk8s.cn'
            ]
          }
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
            name: 'core-mcr-china-https-443'
            description: 'core/mcr-china: The cache of Microsoft\'s container registry in China, to which nodes there are redirected.'
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
              'mcr.azure.cn'
              '*.data.mcr.azure.cn'
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
              'management.chinacloudapi.cn'
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
              'login.chinacloudapi.cn'
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
              '*.azk8s.cn'
            ]
          }
          {
            ruleType: 'ApplicationRule'
            name: 'ubuntu-archive-http-80'
            description: 'ubuntu/archive: Security patches and updates of Ubuntu, between node images.'
            sourceAddresses: [
              '*'
            ]
            protocols: [
              {
                protocolType: 'Http'
                port: 80
              }
            ]
            targetFqdns: [
              'security.ubuntu.com'
              'azure.archive.ubuntu.com'
              'changelogs.ubuntu.com'
            ]
          }
          {
            ruleType: 'ApplicationRule'
            name: 'ubuntu-snapshot-https-443'
            description: 'ubuntu/snapshot: Security patches of Ubuntu from its snapshot service, which the SecurityPatch channel installs from.'
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
              'snapshot.ubuntu.com'
            ]
          }
          {
            ruleType: 'ApplicationRule'
            name: 'windows-binaries-https-443'
            description: 'windows/binaries: Binaries and modules that Windows Server nodes install.'
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
              'onegetcdn.azureedge.net'
              'go.microsoft.com'
            ]
          }
          {
            ruleType: 'ApplicationRule'
            name: 'windows-updates-http-80'
            description: 'windows/updates: Windows Update, its list of trusted certificates and the connection test, over plain HTTP.'
            sourceAddresses: [
              '*'
            ]
            protocols: [
              {
                protocolType: 'Http'
                port: 80
              }
            ]
            targetFqdns: [
              '*.mp.microsoft.com'
              'www.msftconnecttest.com'
              'ctldl.windowsupdate.com'
            ]
          }
          {
            ruleType: 'ApplicationRule'
            name: 'cost-analysis-arm-https-443'
            description: 'cost-analysis/arm: The cost analysis add-on asks Azure\'s management API.'
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
              'management.chinacloudapi.cn'
            ]
          }
          {
            ruleType: 'ApplicationRule'
            name: 'cost-analysis-entra-https-443'
            description: 'cost-analysis/entra: The cost analysis add-on signs in to Microsoft Entra ID.'
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
              'login.microsoftonline.cn'
            ]
          }
        ]
      }
    ]
  }
}
