#!/bin/sh
# Isolates the cluster aks-auto. The order matters.
set -eu

# 1. A registry of AKS's own (managed)
# AKS makes the registry, its cache rule, private endpoint, DNS records and role with the step below, and keeps them so. None of them may be changed or deleted.

# 2. Have nodes boot from the registry (to do)
# New nodes pull from it; those that are there do not yet.
az aks update --resource-group rg-auto --name aks-auto --bootstrap-artifact-source Cache

# 3. Image every node anew (to do)
# A node learns where to pull from only when it boots. Without this, closing the way out cuts off the nodes that are there.
az aks upgrade --resource-group rg-auto --name aks-auto --node-image-only --yes

# 4. Close the way out (to do)
# Only now: nothing that nodes need is outside any more.
az aks update --resource-group rg-auto --name aks-auto --outbound-type none

# 5. Check from inside the network (unseen)
# On a node, or on a machine in the same network: names, the registry, each artefact, and that nothing public is reachable.
# az aks show --resource-group rg-auto --name aks-auto -o json | tidegate isolated check --cluster -
