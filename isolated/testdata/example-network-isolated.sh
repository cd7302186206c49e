#!/bin/sh
# Isolates the cluster aks-ni. The order matters.
set -eu

# 1. A registry of AKS's own (managed)
# AKS made bootstrapacr7f3k2 in the resource group MC_rg-ni_aks-ni_westeurope, with its cache rule, private endpoint, DNS records and role, and keeps them so. None of them may be changed or deleted.

# 2. Have nodes boot from the registry (done)
# New nodes pull from it; those that are there do not yet.
# az aks update --resource-group rg-ni --name aks-ni --bootstrap-artifact-source Cache

# 3. Image every node anew (unseen)
# A node learns where to pull from only when it boots. Without this, closing the way out cuts off the nodes that are there.
# az aks upgrade --resource-group rg-ni --name aks-ni --node-image-only --yes

# 4. Close the way out (done)
# Only now: nothing that nodes need is outside any more.
# az aks update --resource-group rg-ni --name aks-ni --outbound-type none

# 5. Check from inside the network (unseen)
# On a node, or on a machine in the same network: names, the registry, each artefact, and that nothing public is reachable.
# az aks show --resource-group rg-ni --name aks-ni -o json | tidegate isolated check --cluster -
