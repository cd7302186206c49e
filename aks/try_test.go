package aks

import (
	"fmt"
	"os"
	"testing"
)

func TestTry(t *testing.T) {
	for _, n := range []string{"public-gpu-monitor-policy.cli", "usgov-private-keyvault-wi.arm", "china-windows-cost.cli", "network-isolated.arm", "automatic-vnetint-nap.arm"} {
		f, _ := os.Open("/work/shared/reference/clusters/example-" + n + ".json")
		c, err := Read(f)
		if err != nil {
			t.Error(n, err)
			continue
		}
		for _, o := range []Options{{}, {Edition: Oldest, AsStated: true}} {
			r, err := c.Rules(o)
			fmt.Println("=====", n, o.AsStated, err, c.APIServer())
			for _, x := range r.Rules {
				fmt.Println(x.ID, x.Rows, x.To)
			}
			for _, x := range r.Notes {
				fmt.Println("  ", x.Level, x.Code, x.About, x.Text)
			}
			for _, x := range r.Private {
				fmt.Println("  CHECK", x)
			}
		}
	}
}
