// Command tidegate is the outbound firewall for AKS clusters: it knows every
// endpoint that a cluster must reach, enforces exactly that, and proves it.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"
)

func main() {
	os.Exit(run(os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}

// Exit codes, the same for every subcommand.
const (
	exitYes       = 0 // done, or the answer is yes
	exitNo        = 1 // a check failed, a rule is missing, a connection would be denied
	exitUsage     = 2 // asked wrongly: a flag, a file, a word
	exitUndecided = 3 // could not decide
)

// exitError carries an exit code to run. A nil err prints nothing: the command
// has said it already.
type exitError struct {
	code int
	err  error
}

func (e *exitError) Error() string {
	if e.err == nil {
		return fmt.Sprintf("exit status %d", e.code)
	}
	return e.err.Error()
}

func (e *exitError) Unwrap() error { return e.err }

// answerNo ends a command whose answer, already printed, is no.
func answerNo() error { return &exitError{code: exitNo} }

// undecided ends a command that could not find out.
func undecided(err error) error { return &exitError{exitUndecided, err} }

// run is the whole program but for the process around it.
func run(args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	root := rootCommand()
	root.SetArgs(args)
	root.SetIn(stdin)
	root.SetOut(stdout)
	root.SetErr(stderr)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return exitYes
	}
	exit := &exitError{exitUsage, err}
	errors.As(err, &exit)
	if exit.err != nil {
		fmt.Fprintf(stderr, "tidegate: %v\n", exit.err)
	}
	return exit.code
}

func rootCommand() *cobra.Command {
	root := &cobra.Command{
		Use:   "tidegate",
		Short: "The outbound firewall for AKS clusters",
		Long: `Tidegate knows every endpoint an AKS cluster must reach and why, enforces exactly
that at a Linux gateway, and proves it.

Exit status: 0 yes, 1 no (a check failed, a connection would be denied),
2 asked wrongly, 3 could not decide.`,
		Example: `  az aks show -g rg -n prod -o json > prod.json
  tidegate rules --cluster prod.json                                # what it needs, and why
  tidegate export --to azure-firewall-bicep --cluster prod.json     # for the firewall that you have
  tidegate gateway validate --config gateway.yaml                   # for one of its own
  tidegate why 50                                                   # a node does not come up`,
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	root.AddCommand(
		rulesCommand(),
		explainCommand(),
		exportCommand(),
		catalogueCommand(),
		decideCommand(),
		checkCommand(),
		whyCommand(),
		auditCommand(),
		gatewayCommand(),
		labCommand(),
		webhookCommand(),
		mirrorCommand(),
		isolatedCommand(),
		versionCommand(),
	)
	return root
}
