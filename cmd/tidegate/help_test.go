package main

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/cobra"
)

// A stage of an example's pipeline: words, and where its output goes.
type stage struct {
	words []string
	file  string
}

// notHere are the commands whose examples act on the machine or the network; their flags are parsed only.
var notHere = []string{"tidegate check", "tidegate gateway run", "tidegate gateway status", "tidegate gateway reload", "tidegate lab", "tidegate lab exec", "tidegate lab faults", "tidegate webhook run", "tidegate webhook rotate", "tidegate isolated check"}

// others are what other programs in the examples print.
var others = map[string]string{
	"az aks show": "prod.json", "az aks egress-endpoints list": "endpoints.json", "az network firewall policy": "firewall.json",
	"az monitor log-analytics query": "log.jsonl", "terraform show": "plan.json", "kubectl get events": "events.json", "helm template": "workload.yaml",
}

// TestHelpHasExamples: every command shows an example of itself, and each that can run here does.
func TestHelpHasExamples(t *testing.T) {
	dir := exampleFiles(t)
	if err := os.CopyFS(filepath.Join(dir, "aks", "catalogue"), os.DirFS("../../aks/catalogue")); err != nil {
		t.Fatal(err)
	}
	t.Chdir(dir)
	ran := 0
	walk(rootCommand(), func(c *cobra.Command) {
		if c.Hidden || c.Name() == "help" || strings.HasPrefix(c.CommandPath(), "tidegate completion ") {
			return // cobra's own, and what nobody is shown
		}
		own := false
		for _, line := range exampleLines(c.Example) {
			own = own || strings.Contains(line, c.CommandPath())
			t.Run(line, func(t *testing.T) { ran += runExample(t, line) })
		}
		if !own {
			t.Errorf("%s --help shows no example of itself", c.CommandPath())
		}
	})
	if ran < 20 {
		t.Errorf("%d examples were run", ran)
	}
}

func walk(c *cobra.Command, f func(*cobra.Command)) {
	f(c)
	for _, sub := range c.Commands() {
		walk(sub, f)
	}
}

// exampleLines joins lines that end with a pipe or a backslash with the next.
func exampleLines(text string) []string {
	text = strings.NewReplacer("|\n", "| ", "\\\n", " ").Replace(text)
	var out []string
	for line := range strings.Lines(text) {
		line, _, _ = strings.Cut(line, " # ")
		if line = strings.Join(strings.Fields(line), " "); line != "" && !strings.HasPrefix(line, "#") {
			out = append(out, line)
		}
	}
	return out
}

// runExample runs what of a pipeline is ours, and returns how many commands that were.
func runExample(t *testing.T, line string) int {
	var input []byte
	n := 0
	for _, s := range pipeline(line) {
		var out []byte
		if s.words[0] == "tidegate" {
			out = runOurs(t, s.words[1:], input, &n)
		} else {
			out = printed(t, strings.Join(s.words, " "))
		}
		if s.file != "" && n == 0 {
			if err := os.WriteFile(s.file, out, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		input = out
	}
	return n
}

func printed(t *testing.T, command string) []byte {
	for words, file := range others {
		if strings.HasPrefix(command, words) {
			b, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			return b
		}
	}
	if !strings.HasPrefix(command, "kubectl ") { // what it prints is not read on
		t.Errorf("no idea what %q prints", command)
	}
	return nil
}

func runOurs(t *testing.T, args []string, input []byte, n *int) []byte {
	cmd, rest, err := rootCommand().Find(args)
	if err != nil {
		t.Fatal(err)
	}
	if !cmd.Runnable() {
		t.Fatalf("%s needs a command", cmd.CommandPath())
	}
	if slices.Contains(notHere, cmd.CommandPath()) || strings.HasPrefix(cmd.CommandPath(), "tidegate mirror ") { // those need a store and a file
		if cmd.DisableFlagParsing {
			return nil
		}
		if err := cmd.ParseFlags(rest); err != nil {
			t.Errorf("%v", err)
		}
		return nil
	}
	for i, a := range args {
		args[i] = strings.Replace(a, "/var/log/azure/", "", 1)
	}
	if slices.Contains(args, "--live") {
		return nil // asks a cluster
	}
	var out, errors bytes.Buffer
	if code := run(args, bytes.NewReader(input), &out, &errors); code != exitYes && code != exitNo {
		t.Errorf("exit %d: %s", code, errors.String())
	}
	*n++
	if out.Len() == 0 && errors.Len() == 0 {
		t.Error("it says nothing")
	}
	return out.Bytes()
}

// pipeline splits a line as a shell would, as far as the examples need it.
func pipeline(line string) []stage {
	stages := []stage{{}}
	var word strings.Builder
	quoted, any, toFile := false, false, false
	flush := func() {
		last := &stages[len(stages)-1]
		switch {
		case !any:
		case toFile:
			last.file, toFile = word.String(), false
		default:
			last.words = append(last.words, word.String())
		}
		word.Reset()
		any = false
	}
	for _, r := range line {
		switch {
		case r == '\'':
			quoted, any = !quoted, true
		case quoted:
			word.WriteRune(r)
		case r == ' ':
			flush()
		case r == '|':
			flush()
			stages = append(stages, stage{})
		case r == '>':
			flush()
			toFile = true
		default:
			word.WriteRune(r)
			any = true
		}
	}
	flush()
	return stages
}

// exampleFiles is a folder with the files that the examples name.
func exampleFiles(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	cluster, err := os.ReadFile("../../aks/testdata/clusters/example-public-gpu-monitor-policy.cli.json")
	if err != nil {
		t.Fatal(err)
	}
	workload := "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: shop}\nspec: {template: {spec: {containers: [{name: c, image: i, env: [{name: KUBERNETES_SERVICE_HOST, value: 10.0.0.1}]}]}}}\n"
	for name, text := range map[string]string{
		"prod.json":      string(cluster),
		"ext.json":       "[]",
		"endpoints.json": `{"value": [{"category": "images", "endpoints": [{"domainName": "mcr.microsoft.com", "endpointDetails": [{"port": 443, "protocol": "Https"}]}]}]}`,
		"firewall.json":  exampleFirewall,
		"plan.json":      `{"format_version": "1.2", "planned_values": {"root_module": {"resources": [{"mode": "managed", "type": "azurerm_firewall_policy_rule_collection_group", "values": {"name": "aks", "priority": 300, "application_rule_collection": [{"name": "app", "priority": 200, "action": "Allow", "rule": [{"name": "mcr", "protocols": [{"type": "Https", "port": 443}], "source_addresses": ["*"], "destination_fqdns": ["mcr.microsoft.com"]}]}]}}]}}}`,
		"log.jsonl":      exampleLog, "PT1H.json": exampleLog,
		"gateway.yaml":          "apiVersion: tidegate.io/v1\nkind: Gateway\nclusters:\n  - name: prod\n    from: [10.224.0.0/16]\n    internal: [10.0.0.0/8]\n    aks: prod.json\n    dns: gateway\ndns:\n  upstream: [168.63.129.16]\nstate: state\n",
		"flows.jsonl":           "",
		"events.json":           `{"kind": "List", "items": [{"kind": "Event", "message": "Failed to pull image \"mcr.microsoft.com/oss/kubernetes/pause:3.6\": i/o timeout"}]}`,
		"workload.yaml":         workload,
		"deploy/shop.yaml":      workload,
		"cluster-provision.log": "+ exit 50\nERR_OUTBOUND_CONN_FAIL\n",
	} {
		file := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

const exampleFirewall = `[{"name": "aks", "priority": 300, "ruleCollections": [
  {"ruleCollectionType": "FirewallPolicyFilterRuleCollection", "name": "app", "priority": 200, "action": {"type": "Allow"}, "rules": [
    {"ruleType": "ApplicationRule", "name": "mcr", "protocols": [{"protocolType": "Https", "port": 443}], "sourceAddresses": ["10.224.0.0/16"], "targetFqdns": ["mcr.microsoft.com", "*.windows.net"]}]}]}]`

const exampleLog = `{"time": "2026-11-25T10:00:00Z", "category": "AZFWApplicationRule", "properties": {"Protocol": "HTTPS", "SourceIp": "10.224.0.5", "SourcePort": 50000, "DestinationPort": 443, "Fqdn": "mcr.microsoft.com", "Action": "Deny", "ActionReason": "No rule matched"}}
{"time": "2026-11-25T10:00:01Z", "category": "AZFWApplicationRule", "properties": {"Protocol": "HTTPS", "SourceIp": "10.224.0.5", "SourcePort": 50001, "DestinationPort": 443, "Fqdn": "api.example.org", "Action": "Deny", "ActionReason": "No rule matched"}}
`
