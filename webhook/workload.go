package webhook

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"
)

// maxFile bounds a file of workloads: all pods of a cluster of 5,000 nodes, as
// kubectl prints them, are about that much.
const maxFile = 1 << 30

// Object is what Lint has to know of an object of a cluster: of a workload its
// pods' template, of a binding its subjects. Objects of other kinds have neither.
type Object struct {
	metav1.TypeMeta
	metav1.ObjectMeta

	File string // where it was read; empty for a cluster
	Line int    // the line on which its document begins

	Template *corev1.PodTemplateSpec // of what makes pods; of a pod, the pod
	Live     bool                    // a pod that runs on a node

	Automount *bool            // of a service account
	Subjects  []rbacv1.Subject // of a binding
	RoleRef   rbacv1.RoleRef   // of a binding

	JobAnnotations map[string]string // of a cron job: those of its jobs
	template       []string          // where the template stands, for a patch; nil for a pod
}

// ReadObjects reads manifests as kubectl takes them: YAML documents, or JSON
// values one after the other; of the kinds of lists, what is in them. Errors
// name the line on which a document begins. The file's name is only remembered.
func ReadObjects(r io.Reader, file string) ([]Object, error) {
	limited := &io.LimitedReader{R: r, N: maxFile + 1}
	in := bufio.NewReader(limited)
	var all []Object
	each := func(line int, doc []byte) error {
		objects, err := readDocument(doc)
		if err != nil {
			return fmt.Errorf("line %d: %w", line, err)
		}
		for i := range objects {
			objects[i].File, objects[i].Line = file, line
		}
		all = append(all, objects...)
		return nil
	}
	err := documents(in, each)
	if err == nil && limited.N == 0 {
		err = fmt.Errorf("over %d bytes", maxFile)
	}
	return all, err
}

// documents calls each with every document and the line on which it begins.
func documents(in *bufio.Reader, each func(int, []byte) error) error {
	var doc bytes.Buffer
	begins := 1
	for line := 1; ; line++ {
		text, err := in.ReadBytes('\n')
		if err != nil && !errors.Is(err, io.EOF) {
			return err
		}
		end := errors.Is(err, io.EOF)
		if separator := separates(text); separator || end {
			if !separator {
				doc.Write(text)
			}
			if err := each(begins, doc.Bytes()); err != nil || end {
				return err
			}
			doc.Reset()
			begins = line + 1
			continue
		}
		if blank := len(bytes.TrimSpace(doc.Bytes())) == 0 && len(bytes.TrimSpace(text)) == 0; blank {
			begins = line + 1
			continue
		}
		doc.Write(text)
	}
}

// separates: a line of three dashes, with a comment or nothing behind it.
func separates(line []byte) bool {
	rest, ok := bytes.CutPrefix(line, []byte("---"))
	rest = bytes.TrimSpace(rest)
	return ok && (len(rest) == 0 || rest[0] == '#')
}

func readDocument(doc []byte) ([]Object, error) {
	if text := bytes.TrimSpace(doc); len(text) > 0 && text[0] == '{' {
		return readJSON(text)
	}
	return readYAML(doc)
}

// readJSON reads values that follow each other, as jq prints them.
func readJSON(text []byte) ([]Object, error) {
	var all []Object
	for dec := json.NewDecoder(bytes.NewReader(text)); ; {
		var raw json.RawMessage
		if err := dec.Decode(&raw); errors.Is(err, io.EOF) {
			return all, nil
		} else if err != nil {
			return readYAML(text) // which may begin with a brace too
		}
		objects, err := readObject(raw, "")
		if err != nil {
			return nil, err
		}
		all = append(all, objects...)
	}
}

func readYAML(text []byte) ([]Object, error) {
	b, err := yaml.YAMLToJSON(text)
	if err != nil {
		return nil, err
	}
	return readObject(b, "")
}

// object is an object as it is written, as far as Lint looks at any kind.
type object struct {
	metav1.TypeMeta
	Metadata metav1.ObjectMeta `json:"metadata"`
	Items    []json.RawMessage `json:"items"`
	Spec     json.RawMessage   `json:"spec"`
	Status   struct {
		Phase corev1.PodPhase `json:"phase"`
	} `json:"status"`
	Template json.RawMessage  `json:"template"`
	Subjects []rbacv1.Subject `json:"subjects"`
	RoleRef  rbacv1.RoleRef   `json:"roleRef"`

	Automount *bool `json:"automountServiceAccountToken"`
}

// readObject reads one object or list; of a list's items, item is the kind if
// they do not say it themselves.
func readObject(b []byte, item string) ([]Object, error) {
	if text := bytes.TrimSpace(b); len(text) == 0 || string(text) == "null" {
		return nil, nil
	}
	var kind metav1.TypeMeta
	if err := json.Unmarshal(b, &kind); err != nil {
		return nil, err
	}
	if kind.Kind == "" {
		kind.Kind = item
	}
	if kind.Kind == "" {
		return nil, errors.New("an object without a kind")
	}
	var o object
	err := json.Unmarshal(b, &o)
	o.TypeMeta = kind
	switch {
	case strings.HasSuffix(kind.Kind, "List"):
		return o.items()
	case err != nil && known(kind):
		return nil, o.named(err)
	}
	return o.read() // of a kind of one's own only the template counts, if it has one
}

func (o *object) items() ([]Object, error) {
	var all []Object
	for i, raw := range o.Items {
		objects, err := readObject(raw, strings.TrimSuffix(o.Kind, "List"))
		if err != nil {
			return nil, fmt.Errorf("item %d: %w", i, err)
		}
		all = append(all, objects...)
	}
	return all, nil
}

// read takes out of o what Lint looks at.
func (o *object) read() ([]Object, error) {
	out := Object{TypeMeta: o.TypeMeta, ObjectMeta: o.Metadata, Automount: o.Automount, Subjects: o.Subjects, RoleRef: o.RoleRef}
	raw := o.Spec
	switch o.Kind {
	case "Pod":
		out.Template = &corev1.PodTemplateSpec{ObjectMeta: o.Metadata}
		err := decode(raw, &out.Template.Spec)
		out.Live = out.Template.Spec.NodeName != "" && o.Status.Phase != corev1.PodSucceeded && o.Status.Phase != corev1.PodFailed
		return []Object{out}, o.named(err)
	case "CronJob":
		out.template = []string{"spec", "jobTemplate", "spec", "template"}
		var spec batchv1.CronJobSpec
		err := decode(raw, &spec)
		out.Template, out.JobAnnotations = &spec.JobTemplate.Spec.Template, spec.JobTemplate.Annotations
		return []Object{out}, o.named(err)
	case "PodTemplate":
		out.template = []string{"template"}
		err := decode(o.Template, &out.Template)
		return []Object{out}, o.named(err)
	}
	out.template = []string{"spec", "template"}
	var spec struct{ Template *corev1.PodTemplateSpec }
	err := decode(raw, &spec)
	if spec.Template != nil && len(spec.Template.Spec.Containers) > 0 {
		out.Template = spec.Template
	}
	if !known(o.TypeMeta) {
		err = nil // its template is something else
	}
	return []Object{out}, o.named(err)
}

func (o *object) named(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s %q: %w", o.Kind, o.Metadata.Name, err)
}

func decode(b []byte, to any) error {
	if len(b) == 0 {
		return nil
	}
	return json.Unmarshal(b, to)
}

// known: a kind of Kubernetes that Lint reads, by its group.
func known(k metav1.TypeMeta) bool {
	group, _, found := strings.Cut(k.APIVersion, "/")
	if !found {
		group = ""
	}
	switch k.Kind {
	case "Pod", "ReplicationController", "PodTemplate", "ServiceAccount":
		return group == ""
	case "Deployment", "DaemonSet", "StatefulSet", "ReplicaSet":
		return group == "apps"
	case "Job", "CronJob":
		return group == "batch"
	case "RoleBinding", "ClusterRoleBinding":
		return group == "rbac.authorization.k8s.io"
	}
	return false
}
