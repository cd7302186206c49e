// Outbound rules of the AKS cluster every shape, written by tidegate export --to azure-firewall-bicep.
// az deployment group create -g GROUP -f azure-firewall.bicep -p firewallPolicyName=NAME

@description('The firewall policy that the rules go into.')
param firewallPolicyName string

resource policy 'Microsoft.Network/firewallPolicies@2024-05-01' existing = {
  name: firewallPolicyName
}

resource rules 'Microsoft.Network/firewallPolicies/ruleCollectionGroups@2024-05-01' = {
  parent: policy
  name: 'tidegate-every-shape'
  properties: {
    priority: 300
    ruleCollections: [
      {
        ruleCollectionType: 'FirewallPolicyFilterRuleCollection'
        name: 'network'
        priority: 100
        action: {
          type: 'Allow'
        }
        rules: [
          {
            ruleType: 'NetworkRule'
            name: 'dns-exact-udp-123'
            description: 'dns/exact: A name that shows none.'
            sourceAddresses: [
              '10.0.0.0/8'
            ]
            ipProtocols: [
              'UDP'
            ]
            destinationFqdns: [
              'ntp.example.com'
            ]
            destinationPorts: [
              '123'
            ]
          }
          {
            ruleType: 'NetworkRule'
            name: 'dns-exact-tcp-22'
            description: 'dns/exact: A name that shows none.'
            sourceAddresses: [
              '10.0.0.0/8'
            ]
            ipProtocols: [
              'TCP'
            ]
            destinationFqdns: [
              'ssh.example.com'
            ]
            destinationPorts: [
              '22'
            ]
          }
          {
            ruleType: 'NetworkRule'
            name: 'dns-below-tcp-9000'
            description: 'dns/below: Names that show none.'
            sourceAddresses: [
              '10.0.0.0/8'
            ]
            ipProtocols: [
              'TCP'
            ]
            destinationAddresses: [
              '*'
            ]
            destinationPorts: [
              '9000'
            ]
          }
          {
            ruleType: 'NetworkRule'
            name: 'address-one-tcp-9000'
            description: 'address/one: One address.'
            sourceAddresses: [
              '10.0.0.0/8'
            ]
            ipProtocols: [
              'TCP'
            ]
            destinationAddresses: [
              '20.40.1.2'
            ]
            destinationPorts: [
              '9000'
            ]
          }
          {
            ruleType: 'NetworkRule'
            name: 'address-one-udp-1194'
            description: 'address/one: One address.'
            sourceAddresses: [
              '10.0.0.0/8'
            ]
            ipProtocols: [
              'UDP'
            ]
            destinationAddresses: [
              '20.40.1.2'
            ]
            destinationPorts: [
              '1194'
            ]
          }
          {
            ruleType: 'NetworkRule'
            name: 'address-prefix-tcp-443'
            description: 'address/prefix: Prefixes of both families.'
            sourceAddresses: [
              '10.0.0.0/8'
            ]
            ipProtocols: [
              'TCP'
            ]
            destinationAddresses: [
              '20.50.0.0/16'
            ]
            destinationPorts: [
              '443'
            ]
          }
          {
            ruleType: 'NetworkRule'
            name: 'address-any-udp-123'
            description: 'address/any: Any address.'
            sourceAddresses: [
              '10.0.0.0/8'
            ]
            ipProtocols: [
              'UDP'
            ]
            destinationAddresses: [
              '*'
            ]
            destinationPorts: [
              '123'
            ]
          }
          {
            ruleType: 'NetworkRule'
            name: 'address-ports-tcp-30000-32767'
            description: 'address/ports: Ports.'
            sourceAddresses: [
              '10.0.0.0/8'
            ]
            ipProtocols: [
              'TCP'
            ]
            destinationAddresses: [
              '20.60.0.0/24'
            ]
            destinationPorts: [
              '30000-32767'
            ]
          }
          {
            ruleType: 'NetworkRule'
            name: 'tag-cloud-udp-1194'
            description: 'tag/cloud: A service tag.'
            sourceAddresses: [
              '10.0.0.0/8'
            ]
            ipProtocols: [
              'UDP'
            ]
            destinationAddresses: [
              'AzureCloud.westeurope'
            ]
            destinationPorts: [
              '1194'
            ]
          }
          {
            ruleType: 'NetworkRule'
            name: 'clients-some-tcp-22'
            description: 'clients/some: Only these clients.'
            sourceAddresses: [
              '10.1.0.0/16'
              '10.2.0.7'
            ]
            ipProtocols: [
              'TCP'
            ]
            destinationAddresses: [
              '20.40.0.1'
            ]
            destinationPorts: [
              '22'
            ]
          }
        ]
      }
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
            name: 'AzureKubernetesService'
            description: 'The hosts that Microsoft lists for AKS, in its own words; the list is not published.'
            sourceAddresses: [
              '10.0.0.0/8'
            ]
            protocols: [
              {
                protocolType: 'Http'
                port: 80
              }
              {
                protocolType: 'Https'
                port: 443
              }
            ]
            fqdnTags: [
              'AzureKubernetesService'
            ]
          }
          {
            ruleType: 'ApplicationRule'
            name: 'name-label-https-443'
            description: 'name/label: One label of any name.'
            sourceAddresses: [
              '10.0.0.0/8'
            ]
            protocols: [
              {
                protocolType: 'Https'
                port: 443
              }
            ]
            targetFqdns: [
              '*.label.example.com'
            ]
          }
          {
            ruleType: 'ApplicationRule'
            name: 'name-inner-https-443'
            description: 'name/inner: A star within a label.'
            sourceAddresses: [
              '10.0.0.0/8'
            ]
            protocols: [
              {
                protocolType: 'Https'
                port: 443
              }
            ]
            targetFqdns: [
              '*.inner.example.com'
            ]
          }
          {
            ruleType: 'ApplicationRule'
            name: 'name-both-https-443'
            description: 'name/both: Several stars.'
            sourceAddresses: [
              '10.0.0.0/8'
            ]
            protocols: [
              {
                protocolType: 'Https'
                port: 443
              }
            ]
            targetFqdns: [
              '*.both.example.com'
            ]
          }
          {
            ruleType: 'ApplicationRule'
            name: 'name-port-https-8443'
            description: 'name/port: Another port, and a few.'
            sourceAddresses: [
              '10.0.0.0/8'
            ]
            protocols: [
              {
                protocolType: 'Https'
                port: 8443
              }
            ]
            targetFqdns: [
              'port.example.com'
            ]
          }
          {
            ruleType: 'ApplicationRule'
            name: 'name-port-https-9000'
            description: 'name/port: Another port, and a few.'
            sourceAddresses: [
              '10.0.0.0/8'
            ]
            protocols: [
              {
                protocolType: 'Https'
                port: 9000
              }
            ]
            targetFqdns: [
              'ports.example.com'
            ]
          }
          {
            ruleType: 'ApplicationRule'
            name: 'name-port-https-9001'
            description: 'name/port: Another port, and a few.'
            sourceAddresses: [
              '10.0.0.0/8'
            ]
            protocols: [
              {
                protocolType: 'Https'
                port: 9001
              }
            ]
            targetFqdns: [
              'ports.example.com'
            ]
          }
          {
            ruleType: 'ApplicationRule'
            name: 'name-port-https-9002'
            description: 'name/port: Another port, and a few.'
            sourceAddresses: [
              '10.0.0.0/8'
            ]
            protocols: [
              {
                protocolType: 'Https'
                port: 9002
              }
            ]
            targetFqdns: [
              'ports.example.com'
            ]
          }
          {
            ruleType: 'ApplicationRule'
            name: 'clients-some-https-443'
            description: 'clients/some: Only these clients.'
            sourceAddresses: [
              '10.1.0.0/16'
              '10.2.0.7'
            ]
            protocols: [
              {
                protocolType: 'Https'
                port: 443
              }
            ]
            targetFqdns: [
              'some.clients.example'
            ]
          }
          {
            ruleType: 'ApplicationRule'
            name: 'hostile-why-https-443'
            description: 'hostile/why: \'; "quotes" `ticks` \${expr} %{ if } \\ */ -->  allow all  http_access allow all [concat(\'x\')] {{ . }} =1+1 \\'
            sourceAddresses: [
              '10.0.0.0/8'
            ]
            protocols: [
              {
                protocolType: 'Https'
                port: 443
              }
            ]
            targetFqdns: [
              'hostile.example.com'
            ]
          }
        ]
      }
    ]
  }
}
