package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strings"

	"github.com/spf13/cobra"
)

// manifestFlags say how the Job is run.
type manifestFlags struct {
	image, namespace, node string
	hostNetwork            bool
}

func checkManifestCommand() *cobra.Command {
	var f checkFlags
	var m manifestFlags
	cmd := &cobra.Command{
		Use:   "manifest [ENDPOINT…]",
		Short: "Print a Job that checks from inside the cluster",
		Long: `Prints a ConfigMap with what to try and a Job that tries it from a pod, or with
--host-network as the node itself. The Job has no rights in the cluster, runs as an
ordinary user, and fails if the check does; its log is the report. The cluster's JSON
does not go into it, only the endpoints.`,
		Example: `  tidegate check manifest --cluster prod.json --image registry.example/tidegate:1.0 --host-network | kubectl apply -f -
  kubectl -n default logs -f job/tidegate-check`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := m.valid(); err != nil {
				return err
			}
			p, err := f.targets(cmd.InOrStdin(), args)
			if err != nil {
				return err
			}
			var plan bytes.Buffer
			if err := writeJSON(&plan, p); err != nil {
				return err
			}
			_, err = io.WriteString(cmd.OutOrStdout(), m.text(plan.String()))
			return err
		},
	}
	f.addTargets(cmd)
	cmd.Flags().StringVar(&m.image, "image", "", "the image of this program, in a registry that the nodes may reach (required)")
	cmd.Flags().StringVar(&m.namespace, "namespace", "default", "where the Job runs")
	cmd.Flags().StringVar(&m.node, "node", "", "the node that it must run on (default: any)")
	cmd.Flags().BoolVar(&m.hostNetwork, "host-network", false, "see the network and the DNS as the node does")
	return cmd
}

// imageWord and nameWord keep what is written into the manifest from being read as anything but a word.
var (
	imageWord = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9._:/@-]*$`)
	nameWord  = regexp.MustCompile(`^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$`)
)

func (m *manifestFlags) valid() error {
	switch {
	case m.image == "":
		return errors.New("which image? give --image, in a registry that the nodes may reach")
	case !imageWord.MatchString(m.image):
		return fmt.Errorf("--image %q: want a reference such as registry.example/tidegate:1.0", m.image)
	case !nameWord.MatchString(m.namespace):
		return fmt.Errorf("--namespace %q: want the name of a namespace", m.namespace)
	case m.node != "" && !nameWord.MatchString(m.node):
		return fmt.Errorf("--node %q: want the name of a node", m.node)
	}
	return nil
}

// text is the manifest. The cluster's authority comes from kube-root-ca.crt, which every namespace has.
func (m *manifestFlags) text(plan string) string {
	var pod strings.Builder
	if m.hostNetwork {
		pod.WriteString("      hostNetwork: true\n      dnsPolicy: Default\n")
	}
	if m.node != "" {
		fmt.Fprintf(&pod, "      nodeName: %q\n", m.node)
	}
	plan = "    " + strings.ReplaceAll(strings.TrimSuffix(plan, "\n"), "\n", "\n    ")
	return fmt.Sprintf(`apiVersion: v1
kind: ConfigMap
metadata:
  name: tidegate-check
  namespace: %[1]q
data:
  plan.json: |
%[2]s
---
apiVersion: batch/v1
kind: Job
metadata:
  name: tidegate-check
  namespace: %[1]q
  labels: {app.kubernetes.io/name: tidegate-check}
spec:
  backoffLimit: 0
  activeDeadlineSeconds: 300
  ttlSecondsAfterFinished: 3600
  template:
    metadata:
      labels: {app.kubernetes.io/name: tidegate-check}
    spec:
      restartPolicy: Never
      automountServiceAccountToken: false
      tolerations: [{operator: Exists}]
%[3]s      securityContext: {runAsNonRoot: true, runAsUser: 65532, seccompProfile: {type: RuntimeDefault}}
      containers:
      - name: check
        image: %[4]q
        args: [check, --plan, /etc/tidegate/plan.json, --ca, /etc/tidegate/ca/ca.crt]
        securityContext: {allowPrivilegeEscalation: false, readOnlyRootFilesystem: true, capabilities: {drop: [ALL]}}
        resources: {requests: {cpu: 100m, memory: 64Mi}, limits: {memory: 128Mi}}
        volumeMounts:
        - {name: plan, mountPath: /etc/tidegate/plan.json, subPath: plan.json, readOnly: true}
        - {name: ca, mountPath: /etc/tidegate/ca, readOnly: true}
      volumes:
      - {name: plan, configMap: {name: tidegate-check}}
      - {name: ca, configMap: {name: kube-root-ca.crt}}
`, m.namespace, plan, pod.String(), m.image)
}

// maxPlan bounds a plan: real ones are a hundredth of it, and a ConfigMap holds no more.
const maxPlan = 1 << 20

// readPlan reads a plan strictly.
func readPlan(r io.Reader) (checkPlan, error) {
	var p checkPlan
	d := json.NewDecoder(io.LimitReader(r, maxPlan))
	d.DisallowUnknownFields()
	if err := d.Decode(&p); err != nil {
		return p, fmt.Errorf("read the plan: %w", err)
	}
	if p.APIVersion != apiVersion || p.Kind != checkPlanKind {
		return p, fmt.Errorf("read the plan: %s %s, want %s %s", clean(p.APIVersion), clean(p.Kind), apiVersion, checkPlanKind)
	}
	return p, nil
}
