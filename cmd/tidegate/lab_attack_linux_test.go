package main

import (
	"bytes"
	"os/exec"
	"testing"

	"tidegate.io/tidegate/internal/netns/netnstest"
	"tidegate.io/tidegate/lab"
)

// TestNothingGetsAround carries out every tactic in one shape for each kind of cable; `make prove` does so in all.
func TestNothingGetsAround(t *testing.T) {
	netnstest.Need(t)
	const attacks, legal = 400, 80
	siege := siegeOf(t, lab.Kinds()...)
	siege.Quick = true
	report, table := lay(t, siege)
	if !report.OK() {
		t.Errorf("\n%s", table)
	}
	for _, trial := range report.Void() {
		if trial.Needs == "" { // else this machine may lack it
			t.Errorf("void: %s: a client %s, gso=%t: %v", trial.Kind, trial.Name, trial.GSO, trial.Control.Err)
		}
	}
	var tried, passed int
	for _, c := range report.Counts() {
		tried += c.Attacks
		passed += c.Passed + c.OddOK
	}
	if tried < attacks || passed < legal {
		t.Errorf("%d attacks and %d legal connections, want %d and %d", tried, passed, attacks, legal)
	}
	if len(report.Missing) > 0 {
		t.Errorf("not installed, see scripts/setup: %v", report.Missing)
	}
}

// TestOpenSSLIsNotShownAnotherName is the same for what an OpenSSL takes that has asked for a second hello: another name. Of
// hundred that try none arrives, and hundred that show the same name do.
func TestOpenSSLIsNotShownAnotherName(t *testing.T) {
	netnstest.Need(t)
	const times, each = 4, 100
	siege := siegeOf(t, lab.SecondHellos(times))
	report, table := lay(t, siege)
	for _, c := range report.Counts() {
		if !report.OK() || c.Attacks < each || c.Arrived < c.Attacks {
			t.Errorf("%d tried, %d would have arrived, and %d with the same name have\n%s", c.Attacks, c.Arrived, c.Passed, table)
		}
	}
}

// lay carries a siege out, and returns its report and the table of it.
func lay(t *testing.T, siege lab.Siege) (*lab.SiegeReport, string) {
	t.Helper()
	report, err := siege.Run(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var table bytes.Buffer
	if err := report.WriteTable(&table, false); err != nil {
		t.Fatal(err)
	}
	return report, table.String()
}

// siegeOf is a siege of the gateway that this program runs.
func siegeOf(t *testing.T, kinds ...lab.Kind) lab.Siege {
	return lab.Siege{Dir: t.TempDir(), Kinds: kinds, Progress: t.Output(), Site: func(dir string) (lab.Config, error) {
		return attackSite(dir, lab.Example, func() *exec.Cmd {
			cmd := exec.Command("/proc/self/exe", "gateway", "run", "--config", lab.GatewayFile)
			cmd.Args[0] = "tidegate" // testscript runs the command of that name
			return cmd
		})
	}}
}
