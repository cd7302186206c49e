// A private registry for the isolated cluster aks-gov, into the resource group rg-gov.
// az deployment group create --resource-group rg-gov --template-file isolated.bicep

resource registry 'Microsoft.ContainerRegistry/registries@2023-07-01' = {
  name: 'acrisolated'
  location: 'usgovvirginia'
  sku: {
    name: 'Premium'
  }
  properties: {
    adminUserEnabled: false
    networkRuleBypassOptions: 'AzureServices'
    publicNetworkAccess: 'Disabled'
  }
}

resource cacheRule 'Microsoft.ContainerRegistry/registries/cacheRules@2023-07-01' = {
  parent: registry
  name: 'aks-managed-mcr'
  properties: {
    sourceRepository: 'mcr.microsoft.com/*'
    targetRepository: 'aks-managed-repository/*'
  }
}

resource endpoint 'Microsoft.Network/privateEndpoints@2024-05-01' = {
  name: 'acrisolated-endpoint'
  location: 'usgovvirginia'
  properties: {
    privateLinkServiceConnections: [
      {
        name: 'acrisolated-endpoint'
        properties: {
          groupIds: [
            'registry'
          ]
          privateLinkServiceId: '/subscriptions/11111111-2222-3333-4444-555555555555/resourceGroups/rg-gov/providers/Microsoft.ContainerRegistry/registries/acrisolated'
        }
      }
    ]
    subnet: {
      id: '/subscriptions/11111111-2222-3333-4444-555555555555/resourceGroups/rg-net/providers/Microsoft.Network/virtualNetworks/vnet/subnets/endpoints'
    }
  }
  dependsOn: [
    registry
  ]
}

resource zone 'Microsoft.Network/privateDnsZones@2020-06-01' = {
  name: 'privatelink.azurecr.us'
  location: 'global'
  properties: {
  }
}

resource link 'Microsoft.Network/privateDnsZones/virtualNetworkLinks@2020-06-01' = {
  parent: zone
  name: 'aks-gov'
  location: 'global'
  properties: {
    registrationEnabled: false
    virtualNetwork: {
      id: '/subscriptions/11111111-2222-3333-4444-555555555555/resourceGroups/rg-net/providers/Microsoft.Network/virtualNetworks/vnet'
    }
  }
}

resource records 'Microsoft.Network/privateEndpoints/privateDnsZoneGroups@2024-05-01' = {
  parent: endpoint
  name: 'default'
  properties: {
    privateDnsZoneConfigs: [
      {
        name: 'registry'
        properties: {
          privateDnsZoneId: '/subscriptions/11111111-2222-3333-4444-555555555555/resourceGroups/rg-gov/providers/Microsoft.Network/privateDnsZones/privatelink.azurecr.us'
        }
      }
    ]
  }
  dependsOn: [
    zone
  ]
}

resource pull 'Microsoft.Authorization/roleAssignments@2022-04-01' = {
  scope: registry
  name: 'e72365a3-da3e-5c43-99f2-2c7e88f86f47'
  properties: {
    principalId: 'dddddddd-0000-4000-8000-000000000004'
    principalType: 'ServicePrincipal'
    roleDefinitionId: '/subscriptions/11111111-2222-3333-4444-555555555555/providers/Microsoft.Authorization/roleDefinitions/7f951dda-4ed3-4680-a7ca-43fe172d538d'
  }
}
