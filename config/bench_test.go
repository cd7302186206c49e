package config

import (
	"fmt"
	"strings"
	"testing"
)

// manyNames is a gateway's file with n names, 500 a rule.
func manyNames(n int) []byte {
	var b strings.Builder
	b.WriteString("apiVersion: tidegate.io/v1\nkind: Gateway\nclusters:\n  - name: prod\n    from: [10.224.0.0/15]\n    aks: {cloud: public, region: westeurope}\nrules:\n")
	for i := 0; i < n; i += 500 {
		to := make([]string, 0, 500)
		for j := i; j < min(n, i+500); j++ {
			host := fmt.Sprintf("host-%d.svc%d.example", j, j%97)
			if j%2 == 1 {
				host = "*." + host
			}
			to = append(to, fmt.Sprintf("\"https://%s:443\"", host))
		}
		fmt.Fprintf(&b, "  - id: many/%d\n    from: [prod]\n    why: measured\n    to: [%s]\n", i/500, strings.Join(to, ", "))
	}
	return []byte(b.String())
}

func BenchmarkRead(b *testing.B) {
	text := manyNames(100_000)
	b.ReportAllocs()
	for b.Loop() {
		g, err := Read("gateway.yaml", text, nil)
		if err != nil {
			b.Fatal(err)
		}
		if _, err := g.Policy(); err != nil {
			b.Fatal(err)
		}
	}
}
