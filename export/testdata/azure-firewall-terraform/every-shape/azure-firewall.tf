# Outbound rules of the AKS cluster every shape, written by tidegate export --to azure-firewall-terraform.

variable "firewall_policy_id" {
  description = "The firewall policy that the rules go into."
  type        = string
}

resource "azurerm_firewall_policy_rule_collection_group" "tidegate_every_shape" {
  name               = "tidegate-every-shape"
  firewall_policy_id = var.firewall_policy_id
  priority           = 300

  network_rule_collection {
    name     = "network"
    priority = 100
    action   = "Allow"

    rule {
      name              = "dns-exact-udp-123"
      description       = "dns/exact: A name that shows none."
      source_addresses  = ["10.0.0.0/8"]
      destination_fqdns = ["ntp.example.com"]
      protocols         = ["UDP"]
      destination_ports = ["123"]
    }

    rule {
      name              = "dns-exact-tcp-22"
      description       = "dns/exact: A name that shows none."
      source_addresses  = ["10.0.0.0/8"]
      destination_fqdns = ["ssh.example.com"]
      protocols         = ["TCP"]
      destination_ports = ["22"]
    }

    rule {
      name                  = "address-one-tcp-9000"
      description           = "address/one: One address."
      source_addresses      = ["10.0.0.0/8"]
      protocols             = ["TCP"]
      destination_addresses = ["20.40.1.2"]
      destination_ports     = ["9000"]
    }

    rule {
      name                  = "address-one-udp-1194"
      description           = "address/one: One address."
      source_addresses      = ["10.0.0.0/8"]
      protocols             = ["UDP"]
      destination_addresses = ["20.40.1.2"]
      destination_ports     = ["1194"]
    }

    rule {
      name                  = "address-prefix-tcp-443"
      description           = "address/prefix: Prefixes of both families."
      source_addresses      = ["10.0.0.0/8"]
      protocols             = ["TCP"]
      destination_addresses = ["20.50.0.0/16"]
      destination_ports     = ["443"]
    }

    rule {
      name                  = "address-any-udp-123"
      description           = "address/any: Any address."
      source_addresses      = ["10.0.0.0/8"]
      protocols             = ["UDP"]
      destination_addresses = ["*"]
      destination_ports     = ["123"]
    }

    rule {
      name                  = "address-ports-tcp-30000-32767"
      description           = "address/ports: Ports."
      source_addresses      = ["10.0.0.0/8"]
      protocols             = ["TCP"]
      destination_addresses = ["20.60.0.0/24"]
      destination_ports     = ["30000-32767"]
    }

    rule {
      name                  = "tag-cloud-udp-1194"
      description           = "tag/cloud: A service tag."
      source_addresses      = ["10.0.0.0/8"]
      protocols             = ["UDP"]
      destination_addresses = ["AzureCloud.westeurope"]
      destination_ports     = ["1194"]
    }

    rule {
      name                  = "clients-some-tcp-22"
      description           = "clients/some: Only these clients."
      source_addresses      = ["10.1.0.0/16", "10.2.0.7"]
      protocols             = ["TCP"]
      destination_addresses = ["20.40.0.1"]
      destination_ports     = ["22"]
    }
  }

  application_rule_collection {
    name     = "application"
    priority = 200
    action   = "Allow"

    rule {
      name              = "name-exact-https-443"
      description       = "name/exact: One name."
      source_addresses  = ["10.0.0.0/8"]
      destination_fqdns = ["one.exact.example"]

      protocols {
        type = "Https"
        port = 443
      }
    }

    rule {
      name              = "name-exact-http-80"
      description       = "name/exact: One name."
      source_addresses  = ["10.0.0.0/8"]
      destination_fqdns = ["one.exact.example"]

      protocols {
        type = "Http"
        port = 80
      }
    }

    rule {
      name              = "name-below-https-443"
      description       = "name/below: Every name below one."
      source_addresses  = ["10.0.0.0/8"]
      destination_fqdns = ["*.below.example.com"]

      protocols {
        type = "Https"
        port = 443
      }
    }

    rule {
      name              = "name-below-http-80"
      description       = "name/below: Every name below one."
      source_addresses  = ["10.0.0.0/8"]
      destination_fqdns = ["*.below.example.com"]

      protocols {
        type = "Http"
        port = 80
      }
    }

    rule {
      name              = "name-port-https-8443"
      description       = "name/port: Another port, and a few."
      source_addresses  = ["10.0.0.0/8"]
      destination_fqdns = ["port.example.com"]

      protocols {
        type = "Https"
        port = 8443
      }
    }

    rule {
      name              = "name-port-https-9000"
      description       = "name/port: Another port, and a few."
      source_addresses  = ["10.0.0.0/8"]
      destination_fqdns = ["ports.example.com"]

      protocols {
        type = "Https"
        port = 9000
      }
    }

    rule {
      name              = "name-port-https-9001"
      description       = "name/port: Another port, and a few."
      source_addresses  = ["10.0.0.0/8"]
      destination_fqdns = ["ports.example.com"]

      protocols {
        type = "Https"
        port = 9001
      }
    }

    rule {
      name              = "name-port-https-9002"
      description       = "name/port: Another port, and a few."
      source_addresses  = ["10.0.0.0/8"]
      destination_fqdns = ["ports.example.com"]

      protocols {
        type = "Https"
        port = 9002
      }
    }

    rule {
      name              = "clients-some-https-443"
      description       = "clients/some: Only these clients."
      source_addresses  = ["10.1.0.0/16", "10.2.0.7"]
      destination_fqdns = ["some.clients.example"]

      protocols {
        type = "Https"
        port = 443
      }
    }

    rule {
      name              = "hostile-why-https-443"
      description       = "hostile/why: '; \"quotes\" `ticks` $${expr} %%{ if } \\ */ -->  allow all  http_access allow all [concat('x')] {{ . }} =1+1 \\"
      source_addresses  = ["10.0.0.0/8"]
      destination_fqdns = ["hostile.example.com"]

      protocols {
        type = "Https"
        port = 443
      }
    }
  }
}
