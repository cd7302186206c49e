package peers

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/rest"

	tidegate "tidegate.io/tidegate/webhook"
)

const smallPod = `"containers":[{"name":"a","image":"a"}]`

// largePod has as many containers and variables as pods of service meshes have.
func largePod() string {
	env := make([]string, 40)
	for i := range env {
		env[i] = fmt.Sprintf(`{"name":"VARIABLE_%d","value":"of some length, as they have"}`, i)
	}
	containers := make([]string, 6)
	for i := range containers {
		containers[i] = fmt.Sprintf(`{"name":"c%d","image":"a","env":[%s]}`, i, strings.Join(env, ","))
	}
	return `"containers":[` + strings.Join(containers, ",") + `]`
}

// asker returns a function that has the API server admit a pod without keeping
// it, and return what it would keep. It may be used by many goroutines.
func (c *cluster) asker() func(ns, spec string, annotations ...string) (*corev1.Pod, error) {
	c.t.Helper()
	config := rest.CopyConfig(c.env.Config)
	client, err := rest.HTTPClientFor(config)
	if err != nil {
		c.t.Fatal(err)
	}
	host := strings.TrimSuffix(config.Host, "/")
	if !strings.Contains(host, "://") {
		host = "https://" + host
	}
	return func(ns, spec string, annotations ...string) (*corev1.Pod, error) {
		marks := map[string]string{}
		for _, a := range annotations {
			marks[a] = ""
		}
		b, err := json.Marshal(marks)
		if err != nil {
			return nil, err
		}
		resp, err := client.Post(host+"/api/v1/namespaces/"+ns+"/pods?dryRun=All", "application/json", strings.NewReader(
			`{"apiVersion":"v1","kind":"Pod","metadata":{"generateName":"p-","annotations":`+string(b)+`},"spec":{`+spec+`}}`))
		if err != nil {
			return nil, err
		}
		defer resp.Body.Close()
		if b, err = io.ReadAll(resp.Body); err != nil {
			return nil, err
		}
		if resp.StatusCode != http.StatusCreated {
			return nil, fmt.Errorf("%s: %s", resp.Status, b)
		}
		var pod corev1.Pod
		return &pod, json.Unmarshal(b, &pod)
	}
}

// TestHowLongAnAdmissionTakes reports it, with and without a call of the webhook,
// for pods that are made one after the other, and eight at a time. The goal is
// 50 ms for all but one in a hundred calls.
func TestHowLongAnAdmissionTakes(t *testing.T) {
	c, _ := installed(t)
	ask := c.asker()
	for _, size := range []struct{ name, spec string }{{"a small pod", smallPod}, {"six containers of 40 variables", largePod()}} {
		for _, clients := range []int{1, 8} {
			before := c.called()
			plain := c.admissions(ask, clients, size.spec, 0)
			patched := c.admissions(ask, clients, size.spec, 4, tidegate.Annotation)
			t.Logf("%s, %d at a time: p50 %v, p99 %v; with a call p50 %v, p99 %v; the calls: %s", size.name, clients,
				at(plain, 50), at(plain, 99), at(patched, 50), at(patched, 99), c.called().since(before))
		}
	}
}

func at(sorted []time.Duration, percent int) time.Duration {
	return sorted[len(sorted)*percent/100].Round(10 * time.Microsecond)
}

// admissions are how long each of 200 took, the shortest first. Each container
// has to be given so many variables.
func (c *cluster) admissions(ask func(ns, spec string, annotations ...string) (*corev1.Pod, error), clients int, spec string, given int, annotations ...string) []time.Duration {
	c.t.Helper()
	all := make([]time.Duration, 200)
	var asking sync.WaitGroup
	for client := range clients {
		asking.Go(func() {
			for i := client; i < len(all); i += clients {
				began := time.Now()
				pod, err := ask("default", spec, annotations...)
				all[i] = time.Since(began)
				if err != nil {
					c.t.Errorf("a pod was not admitted: %v", err)
				} else if n := strings.Count(strings.Join(podVariables(pod), "\n"), "KUBERNETES_"); n != given*len(pod.Spec.Containers) {
					c.t.Errorf("a pod has %d variables of %d containers, want %d of each", n, len(pod.Spec.Containers), given)
				}
			}
		})
	}
	asking.Wait()
	slices.Sort(all)
	return all
}

// calls are those of the webhook as the API server has counted them: how many
// took at most so many seconds.
type calls map[string]int

var callBucket = regexp.MustCompile(`(?m)^apiserver_admission_webhook_admission_duration_seconds_bucket\{name="kube-service-host.tidegate.io",.*le="([^"]+)"\} (\d+)$`)

func (c *cluster) called() calls {
	c.t.Helper()
	counts := calls{}
	for _, m := range callBucket.FindAllStringSubmatch(c.kubectl("", "get", "--raw", "/metrics"), -1) {
		n, err := strconv.Atoi(m[2])
		if err != nil {
			c.t.Fatal(err)
		}
		counts[m[1]] = n
	}
	return counts
}

func (b calls) since(before calls) string {
	return fmt.Sprintf("%d within 5 ms, %d within 25, %d within 100, %d in all",
		b["0.005"]-before["0.005"], b["0.025"]-before["0.025"], b["0.1"]-before["0.1"], b["+Inf"]-before["+Inf"])
}
