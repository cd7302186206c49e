# Outbound rules of the AKS cluster aks-ml, written by tidegate export --to azure-firewall-terraform.

variable "firewall_policy_id" {
  description = "The firewall policy that the rules go into."
  type        = string
}

resource "azurerm_firewall_policy_rule_collection_group" "tidegate_aks_ml" {
  name               = "tidegate-aks-ml"
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
      destination_fqdns = ["aks-ml-3k2j1h0g.hcp.eastus2.azmk8s.io"]

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
      destination_fqdns = ["*.data.mcr.microsoft.com", "mcr-0001.mcr-msedge.net"]

      protocols {
        type = "Https"
        port = 443
      }
    }

    rule {
      name              = "core-arm-https-443"
      description       = "core/arm: Kubernetes asks Azure's management API for load balancers, disks, routes and addresses."
      source_addresses  = ["*"]
      destination_fqdns = ["management.azure.com"]

      protocols {
        type = "Https"
        port = 443
      }
    }

    rule {
      name              = "core-entra-https-443"
      description       = "core/entra: Tokens of Microsoft Entra ID, without which nothing may talk to Azure."
      source_addresses  = ["*"]
      destination_fqdns = ["login.microsoftonline.com"]

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
      name              = "gpu-nvidia-github-https-443"
      description       = "gpu/nvidia-github: Installation and operation of the NVIDIA driver on GPU nodes, as the article has it."
      source_addresses  = ["*"]
      destination_fqdns = ["nvidia.github.io"]

      protocols {
        type = "Https"
        port = 443
      }
    }

    rule {
      name              = "gpu-nvidia-download-https-443"
      description       = "gpu/nvidia-download: Installation and operation of the NVIDIA driver on GPU nodes, as the article has it."
      source_addresses  = ["*"]
      destination_fqdns = ["us.download.nvidia.com"]

      protocols {
        type = "Https"
        port = 443
      }
    }

    rule {
      name              = "gpu-docker-download-https-443"
      description       = "gpu/docker-download: Installation and operation of the NVIDIA driver on GPU nodes, as the article has it."
      source_addresses  = ["*"]
      destination_fqdns = ["download.docker.com"]

      protocols {
        type = "Https"
        port = 443
      }
    }

    rule {
      name              = "monitor-logs-https-443"
      description       = "monitor/logs: Agents upload logs to Log Analytics."
      source_addresses  = ["*"]
      destination_fqdns = ["*.ods.opinsights.azure.com"]

      protocols {
        type = "Https"
        port = 443
      }
    }

    rule {
      name              = "monitor-onboarding-https-443"
      description       = "monitor/onboarding: The Azure Monitor agent registers with its workspace."
      source_addresses  = ["*"]
      destination_fqdns = ["*.oms.opinsights.azure.com"]

      protocols {
        type = "Https"
        port = 443
      }
    }

    rule {
      name              = "monitor-telemetry-https-443"
      description       = "monitor/telemetry: The agents' own telemetry."
      source_addresses  = ["*"]
      destination_fqdns = ["dc.services.visualstudio.com"]

      protocols {
        type = "Https"
        port = 443
      }
    }

    rule {
      name              = "monitor-metrics-legacy-https-443"
      description       = "monitor/metrics-legacy: Where agents send custom metrics."
      source_addresses  = ["*"]
      destination_fqdns = ["*.monitoring.azure.com"]

      protocols {
        type = "Https"
        port = 443
      }
    }

    rule {
      name              = "monitor-entra-https-443"
      description       = "monitor/entra: Agents sign in to Microsoft Entra ID."
      source_addresses  = ["*"]
      destination_fqdns = ["login.microsoftonline.com"]

      protocols {
        type = "Https"
        port = 443
      }
    }

    rule {
      name              = "monitor-control-global-https-443"
      description       = "monitor/control-global: Agents ask which data collection rules are theirs."
      source_addresses  = ["*"]
      destination_fqdns = ["global.handler.control.monitor.azure.com"]

      protocols {
        type = "Https"
        port = 443
      }
    }

    rule {
      name              = "monitor-ingest-logs-https-443"
      description       = "monitor/ingest-logs: Container insights sends logs to its data collection endpoint."
      source_addresses  = ["*"]
      destination_fqdns = ["*.ingest.monitor.azure.com"]

      protocols {
        type = "Https"
        port = 443
      }
    }

    rule {
      name              = "monitor-ingest-metrics-https-443"
      description       = "monitor/ingest-metrics: Managed Prometheus sends metrics to its data collection endpoint."
      source_addresses  = ["*"]
      destination_fqdns = ["*.metrics.ingest.monitor.azure.com"]

      protocols {
        type = "Https"
        port = 443
      }
    }

    rule {
      name              = "monitor-control-region-https-443"
      description       = "monitor/control-region: Agents fetch the data collection rules of this cluster."
      source_addresses  = ["*"]
      destination_fqdns = ["eastus2.handler.control.monitor.azure.com"]

      protocols {
        type = "Https"
        port = 443
      }
    }

    rule {
      name              = "policy-data-https-443"
      description       = "policy/data: The Azure Policy add-on pulls policies and reports compliance."
      source_addresses  = ["*"]
      destination_fqdns = ["data.policy.core.windows.net"]

      protocols {
        type = "Https"
        port = 443
      }
    }

    rule {
      name              = "policy-store-https-443"
      description       = "policy/store: The Azure Policy add-on pulls the Gatekeeper artifacts of built-in policies."
      source_addresses  = ["*"]
      destination_fqdns = ["store.policy.core.windows.net"]

      protocols {
        type = "Https"
        port = 443
      }
    }

    rule {
      name              = "policy-telemetry-https-443"
      description       = "policy/telemetry: The Azure Policy add-on's own telemetry."
      source_addresses  = ["*"]
      destination_fqdns = ["dc.services.visualstudio.com"]

      protocols {
        type = "Https"
        port = 443
      }
    }
  }
}
