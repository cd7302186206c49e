package peers

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/hashicorp/hcl/v2/hclwrite"
	"github.com/zclconf/go-cty/cty"
)

// TestHCL reads the file as Terraform's language: it parses, it is formatted,
// and every value is a literal: no reason of a rule is a template.
func TestHCL(t *testing.T) {
	outputs(t, "azure-firewall-terraform", "azure-firewall.tf", func(_ string, data []byte) error { return readHCL(data) })
	refuses(t, everyShape(t, "azure-firewall-terraform", "azure-firewall.tf"), []spoil{
		{"$${expr}", "${expr}"},
		{"%%{ if }", "%{ if }"},
		{`variable "firewall_policy_id" {`, `variable "firewall_policy_id"`},
		{`["UDP"]`, `[UDP]`},
		{"  priority ", "  priority  "},
	}, readHCL)
}

func readHCL(data []byte) error {
	f, diags := hclsyntax.ParseConfig(data, "azure-firewall.tf", hcl.InitialPos)
	if diags.HasErrors() {
		return diags
	}
	if diff := cmp.Diff(string(hclwrite.Format(data)), string(data)); diff != "" {
		return fmt.Errorf("not formatted: %s", diff)
	}
	for _, b := range f.Body.(*hclsyntax.Body).Blocks {
		if b.Type == "resource" {
			if err := literals(b.Body); err != nil {
				return err
			}
		}
	}
	return nil
}

func literals(b *hclsyntax.Body) error {
	for name, a := range b.Attributes {
		if name == "firewall_policy_id" {
			continue
		}
		if v, diags := a.Expr.Value(nil); diags.HasErrors() || !v.IsWhollyKnown() || v.Type() == cty.DynamicPseudoType {
			return fmt.Errorf("%s is not a literal: %w", name, diags)
		}
	}
	for _, inner := range b.Blocks {
		if err := literals(inner.Body); err != nil {
			return err
		}
	}
	return nil
}

// terraform is OpenTofu with the azurerm provider, as make test-exporters builds them.
type terraform struct{ tofu, config string }

func openTerraform(t *testing.T) terraform {
	t.Helper()
	const how = "make test-exporters builds it once"
	tofu, err := filepath.Abs(os.Getenv("TIDEGATE_TOFU"))
	if _, e := os.Stat(tofu); os.Getenv("TIDEGATE_TOFU") == "" || err != nil || e != nil {
		missing(t, "TIDEGATE_TOFU, OpenTofu", how)
	}
	provider, err := filepath.Abs(os.Getenv("TIDEGATE_AZURERM"))
	if _, e := os.Stat(provider); os.Getenv("TIDEGATE_AZURERM") == "" || err != nil || e != nil {
		missing(t, "TIDEGATE_AZURERM, the azurerm provider", how)
	}
	config := filepath.Join(t.TempDir(), "tofu.rc")
	text := fmt.Sprintf("provider_installation {\n  dev_overrides {\n    %q = %q\n  }\n}\n", "hashicorp/azurerm", filepath.Dir(provider))
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return terraform{tofu, config}
}

// policyID is the whole variable: a value that is not known yet makes the
// provider skip what it would check.
var policyID = regexp.MustCompile(`(?s)variable "firewall_policy_id" \{.*?\n\}\n`)

// validate lets the provider read the file as it is, and with nothing left open.
func (tf terraform) validate(t *testing.T, data []byte) error {
	t.Helper()
	if err := tf.read(t, string(data)); err != nil {
		return err
	}
	text := policyID.ReplaceAllString(string(data), "")
	text = strings.ReplaceAll(text, "var.firewall_policy_id",
		`"/subscriptions/00000000-0000-0000-0000-000000000000/resourceGroups/rg/providers/Microsoft.Network/firewallPolicies/policy"`)
	if strings.Contains(text, "var.") {
		t.Fatal("a variable is left")
	}
	return tf.read(t, text)
}

func (tf terraform) read(t *testing.T, text string) error {
	t.Helper()
	dir := t.TempDir()
	for name, content := range map[string]string{"azure-firewall.tf": text, "provider.tf": "provider \"azurerm\" {\n  features {}\n}\n"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.Command(tf.tofu, "-chdir="+dir, "validate", "-no-color")
	cmd.Env = append(os.Environ(), "TF_CLI_CONFIG_FILE="+tf.config, "CHECKPOINT_DISABLE=1")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("tofu validate: %w: %s", err, out)
	}
	return nil
}

func TestTerraform(t *testing.T) {
	tf := openTerraform(t)
	outputs(t, "azure-firewall-terraform", "azure-firewall.tf", func(_ string, data []byte) error { return tf.validate(t, data) })
	refuses(t, everyShape(t, "azure-firewall-terraform", "azure-firewall.tf"), []spoil{
		{`["UDP"]`, `["SCTP"]`},
		{`type = "Https"`, `type = "Tls"`},
		{`port = 443`, `port = 65000`},
		{`priority           = 300`, `priority           = 99`},
		{`action   = "Allow"`, `action   = "Permit"`},
		{`["123"]`, `["123456"]`},
		{`["10.1.0.0/16"`, `["10.1.0.0/160"`},
		{`destination_fqdns`, `destination_fqdn`},
		{`network_rule_collection {`, `network_rules {`},
		{`"name-exact-https-443"`, `""`},
	}, func(data []byte) error { return tf.validate(t, data) })
}
