package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"tidegate.io/tidegate/webhook"
)

func webhookLintCommand() *cobra.Command {
	l := webhookLint{}
	cmd := &cobra.Command{
		Use:   "lint [FILE|DIRECTORY|-...]",
		Short: "Say which workloads talk to the API server by its address",
		Long: `Lint reads workloads from files (YAML documents, JSON, lists of them, and what is in
a directory), or with --live from a cluster, and says which of them use the API
server and do not ask for its name, which ask in the wrong place, and which were
started before they could be given it. It prints the patch that mends each.

A workload is taken to use the API server when its pods have a token and a service
account of their own, or one that has a role among what was read; or when it sets
KUBERNETES_SERVICE_HOST to an address. It answers no (exit 1) when it finds any.`,
		Example: `  tidegate webhook lint deploy/
  helm template payments | tidegate webhook lint -
  tidegate webhook lint --live --context prod`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if l.live == (len(args) > 0) {
				return errors.New("what is to be read? give files, - or --live")
			}
			return l.run(cmd, args)
		},
	}
	fs := cmd.Flags()
	l.scope.add(fs)
	l.kube.add(fs)
	fs.BoolVar(&l.live, "live", false, "read the cluster that kubectl would talk to")
	fs.StringVarP(&l.namespace, "namespace", "n", "", "of files: the `NAMESPACE` of what has none; of a cluster: the only one to look at")
	outputFlag(cmd, &l.output, "text", "json")
	return cmd
}

type webhookLint struct {
	scope     scopeFlags
	kube      kubeFlags
	live      bool
	namespace string
	output    string
}

// lintResult is what lint prints as JSON.
type lintResult struct {
	APIVersion string            `json:"apiVersion"`
	Kind       string            `json:"kind"`
	Workloads  int               `json:"workloads"` // that were looked at
	Findings   []webhook.Finding `json:"findings"`
}

func (l *webhookLint) run(cmd *cobra.Command, args []string) error {
	objects, err := l.read(cmd.Context(), args, cmd.InOrStdin())
	if err != nil {
		return err
	}
	namespace := l.namespace
	if namespace == "" {
		namespace = "default"
	}
	r := lintResult{APIVersion: apiVersion, Kind: "WebhookLint", Findings: []webhook.Finding{}}
	for i := range objects {
		if objects[i].Template != nil {
			r.Workloads++
		}
	}
	r.Findings = append(r.Findings, webhook.Lint(objects, &l.scope.Scope, namespace)...)
	out := cmd.OutOrStdout()
	if l.output == "json" {
		if err := writeJSON(out, r); err != nil {
			return err
		}
	} else {
		for i := range r.Findings {
			printFinding(out, painting(out), &r.Findings[i])
		}
	}
	fmt.Fprintf(cmd.ErrOrStderr(), "%d workloads, %d findings\n", r.Workloads, len(r.Findings))
	if len(r.Findings) > 0 {
		return answerNo()
	}
	return nil
}

// read returns what the files or the cluster hold.
func (l *webhookLint) read(ctx context.Context, args []string, stdin io.Reader) ([]webhook.Object, error) {
	if l.live {
		config, err := l.kube.config()
		if err != nil {
			return nil, err
		}
		objects, err := readCluster(ctx, config, l.namespace)
		if err != nil {
			return nil, undecided(err)
		}
		return objects, nil
	}
	var all []webhook.Object
	for _, arg := range args {
		files, err := manifestsIn(arg)
		if err != nil {
			return nil, err
		}
		for _, file := range files {
			objects, err := readFile(file, stdin, func(r io.Reader) ([]webhook.Object, error) { return webhook.ReadObjects(r, file) })
			if err != nil {
				return nil, err
			}
			all = append(all, objects...)
		}
	}
	return all, nil
}

// manifestsIn returns path itself, or the files below it that hold YAML or JSON.
func manifestsIn(path string) ([]string, error) {
	if path == "-" {
		return []string{path}, nil
	}
	info, err := os.Stat(path)
	if err != nil || !info.IsDir() {
		return []string{path}, err
	}
	var files []string
	err = filepath.WalkDir(path, func(p string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() && slices.Contains([]string{".yaml", ".yml", ".json"}, filepath.Ext(p)) {
			files = append(files, p)
		}
		return err
	})
	if err == nil && len(files) == 0 {
		err = fmt.Errorf("%s: no .yaml, .yml or .json in it", path)
	}
	return files, err
}

func printFinding(w io.Writer, p paint, f *webhook.Finding) {
	where := ""
	if f.File != "" {
		where = fmt.Sprintf("  %s:%d", f.File, f.Line)
	}
	fmt.Fprintf(w, "%s  %s%s\n", p.bold(clean(fmt.Sprintf("%s %s/%s", f.Kind, f.Namespace, f.Name))), p.yellow(string(f.Problem)), p.dim(clean(where)))
	fmt.Fprintf(w, "  %s\n", wrap("  ", clean(f.Why)))
	fmt.Fprintf(w, "  %s\n", wrap("  ", clean(f.Do)))
	if f.Patch != nil {
		fmt.Fprintf(w, "  kubectl -n %s patch %s %s --type merge -p %s\n",
			shellQuote(f.Namespace), shellQuote(strings.ToLower(f.Kind)), shellQuote(f.Name), shellQuote(string(f.Patch)))
	}
}

// shellQuote makes one word of s for a shell, so that a name in a file that
// somebody sent cannot become a command of whoever copies the line.
func shellQuote(s string) string {
	s = clean(s)
	special := func(r rune) bool {
		word := r == '-' || r == '.' || r == '/' || '0' <= r && r <= '9' || 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z'
		return !word
	}
	if s != "" && s[0] != '-' && !strings.ContainsFunc(s, special) {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}
