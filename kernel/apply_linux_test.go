package kernel

import (
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"tidegate.io/tidegate/internal/netns"
	"tidegate.io/tidegate/internal/netns/netnstest"
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// nft runs the nft program in a namespace; only tests need it.
func nft(t testing.TB, ns *netns.NS, stdin string, args ...string) string {
	t.Helper()
	cmd := exec.Command("nft", args...)
	cmd.Stdin = strings.NewReader(stdin)
	var out strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &out
	must(t, ns.Start(cmd))
	if err := cmd.Wait(); err != nil {
		t.Fatalf("nft %s: %v\n%s\n%s", strings.Join(args, " "), err, out.String(), stdin)
	}
	return out.String()
}

// openTable opens the table of a namespace for the length of the test.
func openTable(t testing.TB, ns *netns.NS) *Table {
	t.Helper()
	var table *Table
	must(t, ns.Do(func() (err error) { table, err = OpenTable(); return err }))
	t.Cleanup(func() { table.Close() })
	return table
}

func apply(t testing.TB, ns *netns.NS, table *Table, rs *Ruleset, open []Element) {
	t.Helper()
	must(t, ns.Do(func() error { return table.Apply(rs, open) }))
}

func TestTheKernelHoldsWhatTheTextSays(t *testing.T) {
	netnstest.Need(t)
	for name, rs := range goldenPlans(t) {
		t.Run(name, func(t *testing.T) {
			for i := range rs.Chains {
				for _, r := range rs.Chains[i].Rules {
					for j, s := range r {
						if _, is := s.(enqueue); is {
							r[j] = drop // which nft may not know here
						}
					}
				}
			}
			byText, byNetlink := netnstest.New(t), netnstest.New(t)
			nft(t, byText, rs.String(), "-f", "-")
			table := openTable(t, byNetlink)
			table.noOwner = true // which only a process can be
			apply(t, byNetlink, table, rs, nil)
			list := func(ns *netns.NS) string { return nft(t, ns, "", "-n", "list", "ruleset") }
			want, got := list(byText), list(byNetlink)
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("-text +netlink:\n%s", diff)
			}
			apply(t, byNetlink, table, rs, nil)
			if diff := cmp.Diff(got, list(byNetlink)); diff != "" {
				t.Errorf("applied again:\n%s", diff)
			}
			must(t, byNetlink.Do(table.Remove))
			if left := list(byNetlink); left != "" {
				t.Errorf("left after Remove:\n%s", left)
			}
		})
	}
}

func TestProbeFindsWhatThereIs(t *testing.T) {
	netnstest.Need(t)
	ns := netnstest.New(t)
	var f Features
	must(t, ns.Do(func() (err error) { f, err = Probe(); return err }))
	t.Logf("%+v", f)
	if left := nft(t, ns, "", "list", "ruleset"); left != "" {
		t.Errorf("left after Probe:\n%s", left)
	}
	if _, err := os.Stat("/proc/config.gz"); err == nil {
		b, err := exec.Command("zgrep", "-c", "^CONFIG_NFT_QUEUE=", "/proc/config.gz").Output()
		if is := err == nil && strings.TrimSpace(string(b)) != "0"; is != f.NativeQueue {
			t.Errorf("NativeQueue is %t, the kernel's configuration says %t", f.NativeQueue, is)
		}
	}
}
