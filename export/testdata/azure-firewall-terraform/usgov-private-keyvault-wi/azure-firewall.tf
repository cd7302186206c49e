# Outbound rules of the AKS cluster aks-gov, written by tidegate export --to azure-firewall-terraform.

variable "firewall_policy_id" {
  description = "The firewall policy that the rules go into."
  type        = string
}

resource "azurerm_firewall_policy_rule_collection_group" "tidegate_aks_gov" {
  name               = "tidegate-aks-gov"
  firewall_policy_id = var.firewall_policy_id
  priority           = 300

  application_rule_collection {
    name     = "application"
    priority = 200
    action   = "Allow"

    rule {
      name              = "core-mcr-https-443"
      description       = "core/mcr: Microsoft's container registry, from which the images of Kubernetes and of every add-on come, at creation, scaling and upgrade."
      source_addresses  = ["*"]
      destination_fqdns = ["mcr.microsoft.com"]

      protocols {
        type = "Https"
        port = 443
      }
    }

    rule {
      name              = "core-mcr-data-https-443"
      description       = "core/mcr-data: The layers of the registry's images, served by a CDN from hosts of every region."
      source_addresses  = ["*"]
      destination_fqdns = ["*.data.mcr.microsoft.com"]

      protocols {
        type = "Https"
        port = 443
      }
    }

    rule {
      name              = "core-arm-https-443"
      description       = "core/arm: Kubernetes asks Azure's management API for load balancers, disks, routes and addresses."
      source_addresses  = ["*"]
      destination_fqdns = ["management.usgovcloudapi.net"]

      protocols {
        type = "Https"
        port = 443
      }
    }

    rule {
      name              = "core-entra-https-443"
      description       = "core/entra: Tokens of Microsoft Entra ID, without which nothing may talk to Azure."
      source_addresses  = ["*"]
      destination_fqdns = ["login.microsoftonline.us"]

      protocols {
        type = "Https"
        port = 443
      }
    }

    rule {
      name              = "core-packages-microsoft-https-443"
      description       = "core/packages-microsoft: Microsoft's package repositories (Moby, PowerShell, Azure CLI; on Azure Linux the system's own packages)."
      source_addresses  = ["*"]
      destination_fqdns = ["packages.microsoft.com"]

      protocols {
        type = "Https"
        port = 443
      }
    }

    rule {
      name              = "core-binaries-https-443"
      description       = "core/binaries: The binaries that a node installs when it boots, such as kubenet and Azure CNI, at their former address."
      source_addresses  = ["*"]
      destination_fqdns = ["acs-mirror.azureedge.net"]

      protocols {
        type = "Https"
        port = 443
      }
    }

    rule {
      name              = "core-packages-aks-https-443"
      description       = "core/packages-aks: The binaries that a node installs when it boots, such as kubenet and Azure CNI; since spring 2025 node images ask here first."
      source_addresses  = ["*"]
      destination_fqdns = ["packages.aks.azure.com"]

      protocols {
        type = "Https"
        port = 443
      }
    }

    rule {
      name              = "workload-identity-entra-https-443"
      description       = "workload-identity/entra: Pods trade their Kubernetes token for one of Microsoft Entra ID."
      source_addresses  = ["*"]
      destination_fqdns = ["login.microsoftonline.us"]

      protocols {
        type = "Https"
        port = 443
      }
    }

    rule {
      name              = "keyvault-vaults-https-443"
      description       = "keyvault/vaults: Pods of the Key Vault provider read secrets and certificates from your vaults; a plug-in CA of Istio, secure gateways and application routing read theirs this way too."
      source_addresses  = ["*"]
      destination_fqdns = ["*.vault.usgovcloudapi.net"]

      protocols {
        type = "Https"
        port = 443
      }
    }
  }
}
