// Outbound rules of the AKS cluster aks-ml, written by tidegate export --to azure-firewall-bicep.
// az deployment group create -g GROUP -f azure-firewall.bicep -p firewallPolicyName=NAME

@description('The firewall policy that the rules go into.')
param firewallPolicyName string

resource policy 'Microsoft.Network/firewallPolicies@2024-05-01' existing = {
  name: firewallPolicyName
}

resource rules 'Microsoft.Network/firewallPolicies/ruleCollectionGroups@2024-05-01' = {
  parent: policy
  name: 'tidegate-aks-ml'
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
              'aks-ml-3k2j1h0g.hcp.eastus2.azmk8s.io'
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
              'mcr-0001.mcr-msedge.net'
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
              'management.azure.com'
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
              'login.microsoftonline.com'
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
            name: 'gpu-nvidia-github-https-443'
            description: 'gpu/nvidia-github: Installation and operation of the NVIDIA driver on GPU nodes, as the article has it.'
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
              'nvidia.github.io'
            ]
          }
          {
            ruleType: 'ApplicationRule'
            name: 'gpu-nvidia-download-https-443'
            description: 'gpu/nvidia-download: Installation and operation of the NVIDIA driver on GPU nodes, as the article has it.'
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
              'us.download.nvidia.com'
            ]
          }
          {
            ruleType: 'ApplicationRule'
            name: 'gpu-docker-download-https-443'
            description: 'gpu/docker-download: Installation and operation of the NVIDIA driver on GPU nodes, as the article has it.'
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
              'download.docker.com'
            ]
          }
          {
            ruleType: 'ApplicationRule'
            name: 'monitor-logs-https-443'
            description: 'monitor/logs: Agents upload logs to Log Analytics.'
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
              '*.ods.opinsights.azure.com'
            ]
          }
          {
            ruleType: 'ApplicationRule'
            name: 'monitor-onboarding-https-443'
            description: 'monitor/onboarding: The Azure Monitor agent registers with its workspace.'
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
              '*.oms.opinsights.azure.com'
            ]
          }
          {
            ruleType: 'ApplicationRule'
            name: 'monitor-telemetry-https-443'
            description: 'monitor/telemetry: The agents\' own telemetry.'
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
              'dc.services.visualstudio.com'
            ]
          }
          {
            ruleType: 'ApplicationRule'
            name: 'monitor-metrics-legacy-https-443'
            description: 'monitor/metrics-legacy: Where agents send custom metrics.'
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
              '*.monitoring.azure.com'
            ]
          }
          {
            ruleType: 'ApplicationRule'
            name: 'monitor-entra-https-443'
            description: 'monitor/entra: Agents sign in to Microsoft Entra ID.'
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
              'login.microsoftonline.com'
            ]
          }
          {
            ruleType: 'ApplicationRule'
            name: 'monitor-control-global-https-443'
            description: 'monitor/control-global: Agents ask which data collection rules are theirs.'
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
              'global.handler.control.monitor.azure.com'
            ]
          }
          {
            ruleType: 'ApplicationRule'
            name: 'monitor-ingest-logs-https-443'
            description: 'monitor/ingest-logs: Container insights sends logs to its data collection endpoint.'
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
              '*.ingest.monitor.azure.com'
            ]
          }
          {
            ruleType: 'ApplicationRule'
            name: 'monitor-ingest-metrics-https-443'
            description: 'monitor/ingest-metrics: Managed Prometheus sends metrics to its data collection endpoint.'
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
              '*.metrics.ingest.monitor.azure.com'
            ]
          }
          {
            ruleType: 'ApplicationRule'
            name: 'monitor-control-region-https-443'
            description: 'monitor/control-region: Agents fetch the data collection rules of this cluster.'
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
              'eastus2.handler.control.monitor.azure.com'
            ]
          }
          {
            ruleType: 'ApplicationRule'
            name: 'policy-data-https-443'
            description: 'policy/data: The Azure Policy add-on pulls policies and reports compliance.'
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
              'data.policy.core.windows.net'
            ]
          }
          {
            ruleType: 'ApplicationRule'
            name: 'policy-store-https-443'
            description: 'policy/store: The Azure Policy add-on pulls the Gatekeeper artifacts of built-in policies.'
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
              'store.policy.core.windows.net'
            ]
          }
          {
            ruleType: 'ApplicationRule'
            name: 'policy-telemetry-https-443'
            description: 'policy/telemetry: The Azure Policy add-on\'s own telemetry.'
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
              'dc.services.visualstudio.com'
            ]
          }
        ]
      }
    ]
  }
}
