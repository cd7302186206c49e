// A private registry for the isolated cluster aks-auto, into the resource group rg-auto.
// az deployment group create --resource-group rg-auto --template-file isolated.bicep

resource registry 'Microsoft.ContainerRegistry/registries@2023-07-01' = {
  name: 'acrisolated'
  location: 'francecentral'
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
  location: 'francecentral'
  properties: {
    privateLinkServiceConnections: [
      {
        name: 'acrisolated-endpoint'
        properties: {
          groupIds: [
            'registry'
          ]
          privateLinkServiceId: '/subscriptions/11111111-2222-3333-4444-555555555555/resourceGroups/rg-auto/providers/Microsoft.ContainerRegistry/registries/acrisolated'
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
  name: 'privatelink.azurecr.io'
  location: 'global'
  properties: {
  }
}

resource link 'Microsoft.Network/privateDnsZones/virtualNetworkLinks@2020-06-01' = {
  parent: zone
  name: 'aks-auto'
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
          privateDnsZoneId: '/subscriptions/11111111-2222-3333-4444-555555555555/resourceGroups/rg-auto/providers/Microsoft.Network/privateDnsZones/privatelink.azurecr.io'
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
  name: 'c38d5d35-0e23-5493-b3d0-346723447adf'
  properties: {
    principalId: 'dddddddd-0000-4000-8000-000000000004'
    principalType: 'ServicePrincipal'
    roleDefinitionId: '/subscriptions/11111111-2222-3333-4444-555555555555/providers/Microsoft.Authorization/roleDefinitions/7f951dda-4ed3-4680-a7ca-43fe172d538d'
  }
}
