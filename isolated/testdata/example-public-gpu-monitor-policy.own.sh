#!/bin/sh
# Isolates the cluster aks-ml. The order matters.
set -eu

# unsupported: The API server has a public address, which nodes without a way out cannot reach: the cluster has to be private, or have API Server VNet Integration.
# unsupported: The channel SecurityPatch installs packages from outside: set it to NodeImage or None.
echo 'something of this cluster is not supported; see the top of this file' >&2; exit 1

# 1. A registry of tier Premium, closed to the public (to do)
# Only Premium has private endpoints. Azure's own services may still reach out from it, which is how the cache rule fetches.
az acr create --resource-group rg-ml --name acrisolated --location eastus2 --sku Premium --public-network-enabled false

# 2. The cache rule, with exactly these names (to do)
# What the registry lacks it fetches from mcr.microsoft.com. Nodes ask below aks-managed-repository/, so the names are not to be changed.
az acr cache create --resource-group rg-ml --registry acrisolated --name aks-managed-mcr --source-repo 'mcr.microsoft.com/*' --target-repo 'aks-managed-repository/*'

# 3. A private endpoint, group registry (to do)
# An address for the registry in the nodes' network, and one for its data endpoint.
az network private-endpoint create --resource-group rg-ml --name acrisolated-endpoint --location eastus2 --subnet /subscriptions/11111111-2222-3333-4444-555555555555/resourceGroups/rg-net/providers/Microsoft.Network/virtualNetworks/vnet/subnets/endpoints --private-connection-resource-id /subscriptions/11111111-2222-3333-4444-555555555555/resourceGroups/rg-ml/providers/Microsoft.ContainerRegistry/registries/acrisolated --group-id registry --connection-name acrisolated-endpoint

# 4. The private DNS zone, linked to the nodes' network, with two records (to do)
# acrisolated.azurecr.io and acrisolated.eastus2.data.azurecr.io have to lead to the private endpoint. The zone group makes both records in privatelink.azurecr.io, and keeps them.
az network private-dns zone create --resource-group rg-ml --name privatelink.azurecr.io
az network private-dns link vnet create --resource-group rg-ml --zone-name privatelink.azurecr.io --name aks-ml --virtual-network /subscriptions/11111111-2222-3333-4444-555555555555/resourceGroups/rg-net/providers/Microsoft.Network/virtualNetworks/vnet --registration-enabled false
az network private-endpoint dns-zone-group create --resource-group rg-ml --endpoint-name acrisolated-endpoint --name default --private-dns-zone privatelink.azurecr.io --zone-name registry

# 5. The role AcrPull for the kubelet's identity (to do)
# Nodes sign in as it. Where the registry permits anonymous pulls they do not need to.
az role assignment create --role AcrPull --scope /subscriptions/11111111-2222-3333-4444-555555555555/resourceGroups/rg-ml/providers/Microsoft.ContainerRegistry/registries/acrisolated --assignee-object-id dddddddd-0000-4000-8000-000000000004 --assignee-principal-type ServicePrincipal

# 6. Have nodes boot from the registry (to do)
# New nodes pull from it; those that are there do not yet.
az aks update --resource-group rg-ml --name aks-ml --bootstrap-artifact-source Cache --bootstrap-container-registry-resource-id /subscriptions/11111111-2222-3333-4444-555555555555/resourceGroups/rg-ml/providers/Microsoft.ContainerRegistry/registries/acrisolated

# 7. Image every node anew (to do)
# A node learns where to pull from only when it boots. Without this, closing the way out cuts off the nodes that are there.
az aks upgrade --resource-group rg-ml --name aks-ml --node-image-only --yes

# 8. Close the way out (to do)
# Only now: nothing that nodes need is outside any more.
az aks update --resource-group rg-ml --name aks-ml --outbound-type block

# 9. Check from inside the network (unseen)
# On a node, or on a machine in the same network: names, the registry, each artefact, and that nothing public is reachable.
# az aks show --resource-group rg-ml --name aks-ml -o json | tidegate isolated check --cluster -
