# Outbound rules of the AKS cluster aks-cn, written by tidegate export --to azure-firewall-terraform.

variable "firewall_policy_id" {
  description = "The firewall policy that the rules go into."
  type        = string
}

resource "azurerm_firewall_policy_rule_collection_group" "tidegate_aks_cn" {
  name               = "tidegate-aks-cn"
  firewall_policy_id = var.firewall_policy_id
  priority           = 300

  application_rule_collection {
    name     = "application"
    priority = 200
    action   = "Allow"

    rule {
      name              = "core-apiserver-https-443"
      description       = "core/apiserver: Nodes talk to the API server by its name; Konnectivity shares the port and is told apart by its ALPN, which must pass untouched."
      source_addresses  = ["*"]
      destination_fqdns = ["aks-cn-9z8y7x6w.hcp.chinanorth3.cx.prod.service.azk8s.cn"]

      protocols {
        type = "Https"
        port = 443
      }
    }

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
      name              = "core-mcr-china-https-443"
      description       = "core/mcr-china: The cache of Microsoft's container registry in China, to which nodes there are redirected."
      source_addresses  = ["*"]
      destination_fqdns = ["mcr.azure.cn", "*.data.mcr.azure.cn"]

      protocols {
        type = "Https"
        port = 443
      }
    }

    rule {
      name              = "core-arm-https-443"
      description       = "core/arm: Kubernetes asks Azure's management API for load balancers, disks, routes and addresses."
      source_addresses  = ["*"]
      destination_fqdns = ["management.chinacloudapi.cn"]

      protocols {
        type = "Https"
        port = 443
      }
    }

    rule {
      name              = "core-entra-https-443"
      description       = "core/entra: Tokens of Microsoft Entra ID, without which nothing may talk to Azure."
      source_addresses  = ["*"]
      destination_fqdns = ["login.chinacloudapi.cn"]

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
      destination_fqdns = ["*.azk8s.cn"]

      protocols {
        type = "Https"
        port = 443
      }
    }

    rule {
      name              = "ubuntu-archive-http-80"
      description       = "ubuntu/archive: Security patches and updates of Ubuntu, between node images."
      source_addresses  = ["*"]
      destination_fqdns = ["security.ubuntu.com", "azure.archive.ubuntu.com", "changelogs.ubuntu.com"]

      protocols {
        type = "Http"
        port = 80
      }
    }

    rule {
      name              = "ubuntu-snapshot-https-443"
      description       = "ubuntu/snapshot: Security patches of Ubuntu from its snapshot service, which the SecurityPatch channel installs from."
      source_addresses  = ["*"]
      destination_fqdns = ["snapshot.ubuntu.com"]

      protocols {
        type = "Https"
        port = 443
      }
    }

    rule {
      name              = "windows-binaries-https-443"
      description       = "windows/binaries: Binaries and modules that Windows Server nodes install."
      source_addresses  = ["*"]
      destination_fqdns = ["onegetcdn.azureedge.net", "go.microsoft.com"]

      protocols {
        type = "Https"
        port = 443
      }
    }

    rule {
      name              = "windows-updates-http-80"
      description       = "windows/updates: Windows Update, its list of trusted certificates and the connection test, over plain HTTP."
      source_addresses  = ["*"]
      destination_fqdns = ["*.mp.microsoft.com", "www.msftconnecttest.com", "ctldl.windowsupdate.com"]

      protocols {
        type = "Http"
        port = 80
      }
    }

    rule {
      name              = "cost-analysis-arm-https-443"
      description       = "cost-analysis/arm: The cost analysis add-on asks Azure's management API."
      source_addresses  = ["*"]
      destination_fqdns = ["management.chinacloudapi.cn"]

      protocols {
        type = "Https"
        port = 443
      }
    }

    rule {
      name              = "cost-analysis-entra-https-443"
      description       = "cost-analysis/entra: The cost analysis add-on signs in to Microsoft Entra ID."
      source_addresses  = ["*"]
      destination_fqdns = ["login.microsoftonline.cn"]

      protocols {
        type = "Https"
        port = 443
      }
    }
  }
}
