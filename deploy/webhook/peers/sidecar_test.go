package peers

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/google/go-cmp/cmp"
	admissionv1 "k8s.io/api/admission/v1"

	tidegate "tidegate.io/tidegate/webhook"
)

// TestAContainerThatAnotherWebhookAdds is given the name too, though that webhook
// is called after this one, as the injectors of service meshes are: the API
// server asks this one again.
func TestAContainerThatAnotherWebhookAdds(t *testing.T) {
	c, _ := installed(t)
	mesh := httptest.NewTLSServer(http.HandlerFunc(addContainer))
	defer mesh.Close()
	c.kubectl(fmt.Sprintf(`{"apiVersion":"admissionregistration.k8s.io/v1","kind":"MutatingWebhookConfiguration","metadata":{"name":"z-mesh"},"webhooks":[{
		"name":"mesh.example.com","admissionReviewVersions":["v1"],"sideEffects":"None","failurePolicy":"Fail",
		"clientConfig":{"url":%q,"caBundle":%q},
		"rules":[{"apiGroups":[""],"apiVersions":["v1"],"operations":["CREATE"],"resources":["pods"]}]}]}`,
		mesh.URL, base64.StdEncoding.EncodeToString(toPEM("CERTIFICATE", mesh.Certificate().Raw))), "create", "-f", "-")
	ask := c.asker()
	want := append(four("a"), four("mesh")...)
	waitFor(t, func() bool {
		pod, err := ask("default", smallPod, tidegate.Annotation)
		return err == nil && len(pod.Spec.Containers) == 2
	})
	pod, err := ask("default", smallPod, tidegate.Annotation)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, podVariables(pod)); diff != "" {
		t.Errorf("variables (-want +got):\n%s", diff)
	}
}

// addContainer answers a review as a service mesh's injector does.
func addContainer(w http.ResponseWriter, r *http.Request) {
	var review admissionv1.AdmissionReview
	b, err := io.ReadAll(r.Body)
	if err == nil {
		err = json.Unmarshal(b, &review)
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	kind := admissionv1.PatchTypeJSONPatch
	review.Response = &admissionv1.AdmissionResponse{
		UID: review.Request.UID, Allowed: true, PatchType: &kind,
		Patch: []byte(`[{"op":"add","path":"/spec/containers/-","value":{"name":"mesh","image":"a"}}]`),
	}
	review.Request = nil
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(review)
}
