package main

import (
	"bytes"
	"encoding/xml"
	"reflect"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"tidegate.io/tidegate/check"
	"tidegate.io/tidegate/egress"
)

const exampleCluster = "../../aks/testdata/clusters/example-public-gpu-monitor-policy.cli.json"

// TestManifestHoldsThePlan reads the manifest as Kubernetes does, and the plan in it as the Job does.
func TestManifestHoldsThePlan(t *testing.T) {
	var out, errors bytes.Buffer
	args := []string{"check", "manifest", "--cluster", exampleCluster, "--image", "registry.example/tidegate:1.0"}
	if code := run(args, strings.NewReader(""), &out, &errors); code != exitYes {
		t.Fatalf("exit %d: %s", code, errors.String())
	}
	docs := yaml.NewDecoder(&out)
	var config struct {
		Kind string
		Data map[string]string
	}
	var job struct {
		Kind string
		Spec struct {
			Template struct{ Spec map[string]any }
		}
	}
	if err := docs.Decode(&config); err != nil {
		t.Fatal(err)
	}
	if err := docs.Decode(&job); err != nil {
		t.Fatal(err)
	}
	if config.Kind != "ConfigMap" || job.Kind != "Job" || job.Spec.Template.Spec["automountServiceAccountToken"] != false {
		t.Errorf("%s %s %v", config.Kind, job.Kind, job.Spec.Template.Spec)
	}
	got, err := readPlan(strings.NewReader(config.Data["plan.json"]))
	if err != nil {
		t.Fatal(err)
	}
	f := checkFlags{facts: factFlags{cluster: exampleCluster, monitorVia: "fqdn"}}
	want, err := f.targets(nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	if len(got.Targets) < 25 || !reflect.DeepEqual(got, want) {
		t.Errorf("the plan is not what was to be tried:\n%+v\n%+v", got, want)
	}
}

// TestHostileAnswersStayText: what a server says cannot repaint a terminal or end an XML attribute.
func TestHostileAnswersStayText(t *testing.T) {
	r := checkReport{title: "t", Report: check.NewReport([]check.Result{{
		Target: check.Target{Kind: check.HTTPS, Name: egress.MustParseName("a.example"), Port: 443, Rules: []string{"r"}},
		Cause:  check.HTTPStatus, Detail: "the answer is 403 \x1b[2J\"/><evil a=\"",
	}}, nil)}
	for _, format := range []string{"text", "junit"} {
		var out bytes.Buffer
		if err := r.write(&out, format); err != nil {
			t.Fatal(err)
		}
		if strings.Contains(out.String(), "\x1b") {
			t.Errorf("%s: %q", format, out.String())
		}
		if format == "junit" {
			var s junitSuite
			if err := xml.Unmarshal(out.Bytes(), &s); err != nil || s.Failures != 1 || !strings.Contains(s.Cases[0].Failure.Message, `"/><evil a="`) {
				t.Errorf("%v: %s", err, out.String())
			}
		}
	}
}
