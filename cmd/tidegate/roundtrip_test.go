package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestAuditReadsWhatExportWrites: the exported rules hold everything that they say they hold, and nothing wider.
func TestAuditReadsWhatExportWrites(t *testing.T) {
	files, err := filepath.Glob("../../aks/testdata/clusters/*.cli.json")
	if err != nil || len(files) == 0 {
		t.Fatal(err)
	}
	for _, format := range []string{"azure-firewall", "cilium", "squid", "csv", "json", "yaml"} {
		for _, cluster := range files {
			if strings.Contains(cluster, "network-isolated") {
				continue // it has no rules
			}
			t.Run(format+"/"+filepath.Base(cluster), func(t *testing.T) {
				var rules, gaps bytes.Buffer
				if code := run([]string{"export", "--to", format, "--cluster", cluster, "--from", "10.224.0.0/16"}, strings.NewReader(""), &rules, &gaps); code != exitYes {
					t.Fatalf("export: exit %d: %s", code, gaps.String())
				}
				file := filepath.Join(t.TempDir(), "policy")
				if err := os.WriteFile(file, rules.Bytes(), 0o600); err != nil {
					t.Fatal(err)
				}
				var out, errors bytes.Buffer
				code := run([]string{"audit", "policy", file, "--cluster", cluster, "--from", "10.224.0.0/16"}, strings.NewReader(""), &out, &errors)
				missing := strings.Contains(gaps.String(), "left out")
				if code != exitYes && !missing || strings.Contains(out.String(), "Wider") || errors.Len() > 0 {
					t.Errorf("exit %d with gaps %q\n%s%s", code, gaps.String(), out.String(), errors.String())
				}
			})
		}
	}
}
