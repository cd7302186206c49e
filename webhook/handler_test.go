package webhook

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	admissionv1 "k8s.io/api/admission/v1"
)

func handler(t testing.TB) *Handler {
	return &Handler{
		APIServer: name(t),
		Scope:     Scope{Namespaces: SystemNamespaces(), Excluded: []string{"own"}, OptOut: OptOut},
	}
}

// review is one as the API server sends it.
func review(namespace, pod string, edit ...string) string {
	s := `{"kind":"AdmissionReview","apiVersion":"admission.k8s.io/v1","request":{"uid":"7f0b2891-916f-4ed6-b7cd-27bff1815a8c",` +
		`"kind":{"group":"","version":"v1","kind":"Pod"},"resource":{"group":"","version":"v1","resource":"pods"},` +
		`"namespace":"` + namespace + `","operation":"CREATE","userInfo":{"username":"system:serviceaccount:kube-system:replicaset-controller"},` +
		`"object":` + pod + `,"oldObject":null,"dryRun":false,"options":{"kind":"CreateOptions","apiVersion":"meta.k8s.io/v1"}}}`
	return strings.NewReplacer(edit...).Replace(s)
}

func post(h http.Handler, body string) *httptest.ResponseRecorder {
	r := httptest.NewRequest("POST", "/mutate", strings.NewReader(body))
	r.Header.Set("Content-Type", "application/json; charset=utf-8")
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

func answer(t testing.TB, w *httptest.ResponseRecorder) *admissionv1.AdmissionResponse {
	t.Helper()
	if w.Code != http.StatusOK {
		t.Fatalf("status %d: %s", w.Code, w.Body)
	}
	var r admissionv1.AdmissionReview
	if err := json.Unmarshal(w.Body.Bytes(), &r); err != nil {
		t.Fatal(err)
	}
	if r.APIVersion != "admission.k8s.io/v1" || r.Kind != "AdmissionReview" || r.Response == nil || r.Request != nil {
		t.Fatalf("not an answer to a review: %s", w.Body)
	}
	if !r.Response.Allowed {
		t.Fatalf("the webhook said no: %s", w.Body)
	}
	if (r.Response.Patch == nil) != (r.Response.PatchType == nil) {
		t.Fatalf("patch and its type go together: %s", w.Body)
	}
	return r.Response
}

func TestHandlerAnswersReviews(t *testing.T) {
	const (
		plain     = `{"metadata":{"name":"p"},"spec":{"containers":[{"name":"a"}]}}`
		annotated = `{"metadata":{"annotations":{"` + Annotation + `":""}},"spec":{"containers":[{"name":"a"}]}}`
		labelled  = `{"metadata":{"labels":{"` + Annotation + `":""}},"spec":{"containers":[{"name":"a"}]}}`
		has       = `{"spec":{"containers":[{"name":"a","env":[` + four + `]}]}}`
	)
	for _, row := range []struct {
		name, body string
		want       Result
	}{
		{"a pod of kube-system is patched", review("kube-system", plain), Patched},
		{"a pod of gatekeeper-system is patched", review("gatekeeper-system", plain), Patched},
		{"an annotated pod is patched", review("shop", annotated), Patched},
		{"in a dry run too, since nothing else happens", review("shop", annotated, `"dryRun":false`, `"dryRun":true`), Patched},
		{"any other pod is not", review("shop", plain), OutOfScope},
		{"a label is no annotation", review("shop", labelled), OutOfScope},
		{"an annotated pod of the webhook's own namespace is not", review("own", annotated), OutOfScope},
		{"a pod that has the name stays", review("kube-system", has), Unchanged},
		{"an update stays: it cannot change variables", review("kube-system", plain, "CREATE", "UPDATE"), OutOfScope},
		{"an eviction stays", review("kube-system", `{}`, `"operation"`, `"subResource":"eviction","operation"`), OutOfScope},
		{"another resource stays", review("kube-system", plain, `"resource":"pods"`, `"resource":"podtemplates"`), OutOfScope},
		{"a pod that is none is let through", review("kube-system", `{"spec":{"containers":"a"}}`), Unreadable},
		{"a pod that says a thing twice is let through", review("kube-system", `{"spec":{"containers":[{"name":"a"}],"containers":[]}}`), Unreadable},
		{"no pod at all is let through", review("kube-system", "null", `"object":null,`, ``), Unreadable},
	} {
		t.Run(row.name, func(t *testing.T) {
			var results []Result
			h := handler(t)
			h.Done = func(r Result, _ time.Duration) { results = append(results, r) }
			got := answer(t, post(h, row.body))
			if !slices.Equal(results, []Result{row.want}) {
				t.Errorf("results %v, want %v", results, row.want)
			}
			if got.UID != "7f0b2891-916f-4ed6-b7cd-27bff1815a8c" {
				t.Errorf("uid %q is not the request's", got.UID)
			}
			if patched := got.Patch != nil; patched != (row.want == Patched) {
				t.Errorf("patch %s for %s", got.Patch, row.want)
			}
			if warned := len(got.Warnings) > 0; warned != (row.want == Unreadable) {
				t.Errorf("warnings %q for %s", got.Warnings, row.want)
			}
		})
	}
}

func TestHandlerRefusesWhatIsNoReview(t *testing.T) {
	request := func(method, kind, body string) *http.Request {
		r := httptest.NewRequest(method, "/mutate", strings.NewReader(body))
		r.Header.Set("Content-Type", kind)
		return r
	}
	const js = "application/json"
	for _, row := range []struct {
		name    string
		request *http.Request
		want    int
	}{
		{"a look", request("GET", js, ""), http.StatusMethodNotAllowed},
		{"a form", request("POST", "application/x-www-form-urlencoded", "a=b"), http.StatusUnsupportedMediaType},
		{"no type", request("POST", "", review("a", "{}")), http.StatusUnsupportedMediaType},
		{"nothing", request("POST", js, ""), http.StatusBadRequest},
		{"no JSON", request("POST", js, "kind: AdmissionReview"), http.StatusBadRequest},
		{"two reviews", request("POST", js, review("a", "{}")+review("a", "{}")), http.StatusBadRequest},
		{"a pod", request("POST", js, `{"kind":"Pod","apiVersion":"v1"}`), http.StatusBadRequest},
		{"an older review", request("POST", js, review("a", "{}", "admission.k8s.io/v1", "admission.k8s.io/v1beta1")), http.StatusBadRequest},
		{"an answer", request("POST", js, `{"kind":"AdmissionReview","apiVersion":"admission.k8s.io/v1","response":{"uid":"a","allowed":true}}`), http.StatusBadRequest},
		{"a review with two uids", request("POST", js, review("a", "{}", `"uid"`, `"uid":"x","uid"`)), http.StatusBadRequest},
		{"too much", request("POST", js, review("a", `{"a":"`+strings.Repeat("x", maxReview)+`"}`)), http.StatusRequestEntityTooLarge},
	} {
		w := httptest.NewRecorder()
		handler(t).ServeHTTP(w, row.request)
		if w.Code != row.want {
			t.Errorf("%s: status %d, want %d: %s", row.name, w.Code, row.want, w.Body)
		}
	}
}

// TestHandlerWithoutNamePatchesNothing: the zero Handler does no harm.
func TestHandlerWithoutNamePatchesNothing(t *testing.T) {
	got := answer(t, post(&Handler{Scope: Scope{Namespaces: []string{"a"}}}, review("a", `{"spec":{"containers":[{"name":"a"}]}}`)))
	if got.Patch != nil {
		t.Errorf("patch %s", got.Patch)
	}
}

// TestHandlerUnderFlood: with every slot taken by a client that does not send,
// a review is told so while the API server still listens.
func TestHandlerUnderFlood(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := handler(t)
		closers := make([]io.Closer, maxReviews)
		done := make(chan struct{})
		for i := range closers {
			body, w := io.Pipe()
			closers[i] = w
			go func() {
				r := httptest.NewRequest("POST", "/mutate", body)
				r.Header.Set("Content-Type", "application/json")
				h.ServeHTTP(httptest.NewRecorder(), r)
				done <- struct{}{}
			}()
		}
		synctest.Wait()
		began := time.Now()
		if w := post(h, review("kube-system", "{}")); w.Code != http.StatusServiceUnavailable {
			t.Errorf("status %d, want 503", w.Code)
		}
		if waited := time.Since(began); waited != waitAtMost {
			t.Errorf("answered after %v, want %v", waited, waitAtMost)
		}
		for _, c := range closers {
			c.Close()
			<-done
		}
		answer(t, post(h, review("kube-system", "{}")))
	})
}

// FuzzReview holds the handler against a naive one that edits the pod as a tree
// of maps: any pod in a review that can be read is answered, and what the API
// server's library makes of the patch is the pod that was wished for.
func FuzzReview(f *testing.F) {
	for _, pod := range []string{
		`{"spec":{"containers":[{"name":"a"}]}}`,
		`{"metadata":{"annotations":{"` + Annotation + `":""}},"spec":{"initContainers":[{"name":"i","env":[]}],"containers":[{"name":"a","env":[{"name":"KUBERNETES_PORT"}]}]}}`,
		`{"metadata":{"annotations":{"` + OptOut + `":""}},"spec":{"containers":[{"name":"a","env":null}]}}`,
		`{"spec":{"containers":[null,{"name":"a","env":[null,` + four + `,{"name":"KUBERNETES_PORT","valueFrom":{}}]}]}}`,
		`{"spec":{"containers":[{"Name":"a","env":{}}],"CONTAINERS":7}}`,
		`null`, `[]`, `{"spec":null}`,
	} {
		f.Add("7f0b2891", "kube-system", "CREATE", pod)
		f.Add("", "shop", "CREATE", pod)
		f.Add("\"\x00\xff", "own", "UPDATE", pod)
	}
	h := handler(f)
	f.Fuzz(func(t *testing.T, uid, namespace, operation, pod string) {
		if !json.Valid([]byte(pod)) {
			t.Skip()
		}
		body := fmt.Sprintf(`{"kind":"AdmissionReview","apiVersion":"admission.k8s.io/v1","request":{"uid":%s,"namespace":%s,"operation":%s,`+
			`"resource":{"version":"v1","resource":"pods"},"object":%s}}`, text(uid), text(namespace), text(operation), pod)
		if !readable(body) {
			t.Skip()
		}
		got := answer(t, post(h, body))
		if want := valid(uid); string(got.UID) != want {
			t.Fatalf("uid %q, asked with %q", got.UID, want)
		}
		if got.Patch == nil {
			return
		}
		if namespace == "own" || operation != "CREATE" {
			t.Fatalf("patch outside the scope: %s", got.Patch)
		}
		patched := applyRaw(t, []byte(pod), got.Patch)
		if diff := cmp.Diff(wished(generic(t, []byte(pod))), generic(t, patched)); diff != "" {
			t.Fatalf("patched pod (-wished +got):\n%s", diff)
		}
		again := answer(t, post(h, strings.Replace(body, pod, string(patched), 1)))
		if again.Patch != nil {
			t.Fatalf("a second patch: %s", again.Patch)
		}
	})
}

// readable: the review around the pod has no field twice (the pod's text may end it early).
func readable(body string) bool {
	var r admissionv1.AdmissionReview
	return unmarshal([]byte(body), &r) == nil
}

func text(s string) string {
	b, _ := json.Marshal(s)
	return string(b)
}

// valid is s as it comes out of JSON, which holds no bytes that are not UTF-8.
func valid(s string) string {
	var out string
	_ = json.Unmarshal([]byte(text(s)), &out)
	return out
}

// wished gives a pod, as a tree, the variables.
func wished(pod map[string]any) map[string]any {
	want := map[string]string{
		"KUBERNETES_SERVICE_HOST": host, "KUBERNETES_PORT": "tcp://" + host + ":443",
		"KUBERNETES_PORT_443_TCP": "tcp://" + host + ":443", "KUBERNETES_PORT_443_TCP_ADDR": host,
	}
	order := []string{"KUBERNETES_SERVICE_HOST", "KUBERNETES_PORT", "KUBERNETES_PORT_443_TCP", "KUBERNETES_PORT_443_TCP_ADDR"}
	spec, _ := pod["spec"].(map[string]any)
	for _, list := range []string{"initContainers", "containers"} {
		containers, _ := spec[list].([]any)
		for _, c := range containers {
			c, _ := c.(map[string]any)
			if name, _ := c["name"].(string); name == "" {
				continue
			}
			env, _ := c["env"].([]any)
			var first, rest []any
			has := map[string]bool{}
			for _, e := range env {
				m, _ := e.(map[string]any)
				n, _ := m["name"].(string)
				if v, ok := want[n]; ok {
					has[n] = true
					if m["value"] != v || m["valueFrom"] != nil {
						e = map[string]any{"name": n, "value": v}
					}
				}
				rest = append(rest, e)
			}
			for _, n := range order {
				if !has[n] {
					first = append(first, map[string]any{"name": n, "value": want[n]})
				}
			}
			c["env"] = append(first, rest...)
		}
	}
	return pod
}

// bigPod is about as much as a service mesh makes of a pod: two init containers,
// four containers, forty variables each.
func bigPod() string {
	var env []string
	for i := range 40 {
		env = append(env, fmt.Sprintf(`{"name":"VAR_%d","valueFrom":{"configMapKeyRef":{"name":"settings","key":"key-%d"}}}`, i, i))
	}
	c := `{"name":"a","image":"mcr.microsoft.com/a:1","resources":{"limits":{"cpu":"1","memory":"1Gi"}},"env":[` + strings.Join(env, ",") + `]}`
	return `{"metadata":{"name":"p","annotations":{"` + Annotation + `":"true"}},"spec":{"initContainers":[` + c + `,` + c + `],"containers":[` +
		strings.Join([]string{c, c, c, c}, ",") + `]}}`
}

// BenchmarkReview is what one review costs: read, decided, answered.
func BenchmarkReview(b *testing.B) {
	small := `{"metadata":{"name":"p"},"spec":{"containers":[{"name":"a","image":"mcr.microsoft.com/a:1","env":[{"name":"A","value":"b"}]}]}}`
	for _, row := range []struct{ name, body string }{
		{"small pod", review("kube-system", small)},
		{"small pod out of scope", review("shop", small)},
		{"big pod", review("shop", bigPod())},
	} {
		b.Run(row.name, func(b *testing.B) {
			h := handler(b)
			b.ReportAllocs()
			b.SetBytes(int64(len(row.body)))
			for b.Loop() {
				if w := post(h, row.body); w.Code != http.StatusOK {
					b.Fatal(w.Code)
				}
			}
		})
	}
}

// BenchmarkReviewOverTLS is what the API server sees, over HTTP/2 on loopback,
// with eight reviews at a time. The goal is 50 ms for the slowest in a hundred.
func BenchmarkReviewOverTLS(b *testing.B) {
	s := httptest.NewUnstartedServer(handler(b))
	s.EnableHTTP2 = true
	s.StartTLS()
	defer s.Close()
	body := []byte(review("shop", bigPod()))
	took := make(chan []time.Duration, 8)
	share := b.N/cap(took) + 1
	b.ResetTimer()
	for range cap(took) {
		go func() {
			var all []time.Duration
			for range share {
				began := time.Now()
				r, err := s.Client().Post(s.URL, "application/json", bytes.NewReader(body))
				if err != nil {
					b.Error(err)
					break
				}
				_, _ = io.Copy(io.Discard, r.Body)
				r.Body.Close()
				all = append(all, time.Since(began))
			}
			took <- all
		}()
	}
	var all []time.Duration
	for range cap(took) {
		all = append(all, <-took...)
	}
	b.StopTimer()
	slices.Sort(all)
	b.ReportMetric(float64(all[len(all)/2].Microseconds())/1000, "p50-ms")
	b.ReportMetric(float64(all[len(all)*99/100].Microseconds())/1000, "p99-ms")
}
