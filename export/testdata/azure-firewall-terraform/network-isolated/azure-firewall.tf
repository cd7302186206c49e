# Outbound rules of the AKS cluster aks-ni, written by tidegate export --to azure-firewall-terraform.

variable "firewall_policy_id" {
  description = "The firewall policy that the rules go into."
  type        = string
}

resource "azurerm_firewall_policy_rule_collection_group" "tidegate_aks_ni" {
  name               = "tidegate-aks-ni"
  firewall_policy_id = var.firewall_policy_id
  priority           = 300
}
