package webhook

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"strconv"
	"sync"
	"time"

	admissionv1 "k8s.io/api/admission/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	kjson "sigs.k8s.io/json"

	"tidegate.io/tidegate/egress"
)

const (
	// maxReview bounds a review's bytes: the API server takes no request over
	// 3 MiB, and wraps the pod in a review with its user and options.
	maxReview = 4 << 20

	// maxReviews bounds the reviews that are read at the same time, and so the
	// memory that a flood of them can take: one of the largest takes some 20 MiB.
	// A usual one takes a tenth of a millisecond, so that few are many.
	maxReviews = 8

	// waitAtMost is how long a review waits for its turn. The API server goes on
	// without an answer after two seconds; a late one is of no use to anyone.
	waitAtMost = time.Second
)

// Result is what became of a review.
type Result string

// The results of a review.
const (
	Patched    Result = "patched"      // the pod was given the name
	Unchanged  Result = "unchanged"    // the pod has the name already
	OutOfScope Result = "out-of-scope" // not a pod that is being made, or not one to give the name to
	Unreadable Result = "unreadable"   // the pod in the review cannot be read; it was let through
	BadReview  Result = "bad-review"   // no review at all; answered with an HTTP error
	Busy       Result = "busy"         // too many at once; answered with an HTTP error
)

// Results lists every Result.
func Results() []Result {
	return []Result{Patched, Unchanged, OutOfScope, Unreadable, BadReview, Busy}
}

// Handler answers admission reviews (admission.k8s.io/v1) of pods. Every review
// that can be read is answered with its uid and "allowed": an HTTP error, which
// is for what is no review, makes the API server follow the failure policy,
// but a "not allowed" would be final. It may be used by many goroutines; its
// fields must not change after the first request.
type Handler struct {
	APIServer egress.Name // the name that pods are given; zero: none is given any
	Scope     Scope
	Done      func(Result, time.Duration) // told of each review when it is answered; nil: nobody is

	once  sync.Once
	slots chan struct{}
	vars  []corev1.EnvVar
}

func (h *Handler) start() {
	h.slots = make(chan struct{}, maxReviews)
	if !h.APIServer.IsZero() {
		h.vars = Variables(h.APIServer)
	}
}

// ServeHTTP implements http.Handler.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	began := time.Now()
	result := h.serve(w, r)
	if h.Done != nil {
		h.Done(result, time.Since(began))
	}
}

func (h *Handler) serve(w http.ResponseWriter, r *http.Request) Result {
	h.once.Do(h.start)
	if r.Method != http.MethodPost {
		w.Header().Set("Allow", http.MethodPost)
		http.Error(w, "a review is posted", http.StatusMethodNotAllowed)
		return BadReview
	}
	if kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || kind != "application/json" {
		http.Error(w, "a review is application/json", http.StatusUnsupportedMediaType)
		return BadReview
	}
	turn := time.NewTimer(waitAtMost)
	defer turn.Stop()
	select {
	case h.slots <- struct{}{}:
		defer func() { <-h.slots }()
	case <-turn.C:
		http.Error(w, "too many reviews at once", http.StatusServiceUnavailable)
		return Busy
	case <-r.Context().Done():
		return Busy
	}
	request, status, err := readReview(http.MaxBytesReader(w, r.Body, maxReview))
	if err != nil {
		http.Error(w, err.Error(), status)
		return BadReview
	}
	response, result := h.review(request)
	answer, err := json.Marshal(admissionv1.AdmissionReview{
		TypeMeta: metav1.TypeMeta{APIVersion: admissionv1.SchemeGroupVersion.String(), Kind: "AdmissionReview"},
		Response: response,
	})
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return BadReview
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(answer) // when the API server has gone there is nobody to tell
	return result
}

// readReview returns the request in a review, or the HTTP status for what is none.
func readReview(r io.Reader) (*admissionv1.AdmissionRequest, int, error) {
	b, err := io.ReadAll(r)
	if tooLarge := (*http.MaxBytesError)(nil); errors.As(err, &tooLarge) {
		return nil, http.StatusRequestEntityTooLarge, fmt.Errorf("review: over %d bytes", tooLarge.Limit)
	}
	if err != nil {
		return nil, http.StatusBadRequest, fmt.Errorf("review: %w", err)
	}
	var review admissionv1.AdmissionReview
	if err := unmarshal(b, &review); err != nil {
		return nil, http.StatusBadRequest, fmt.Errorf("review: %w", err)
	}
	if review.APIVersion != admissionv1.SchemeGroupVersion.String() || review.Kind != "AdmissionReview" {
		return nil, http.StatusBadRequest, fmt.Errorf("review: want an AdmissionReview of %s", admissionv1.SchemeGroupVersion)
	}
	if review.Request == nil {
		return nil, http.StatusBadRequest, errors.New("review: no request")
	}
	return review.Request, http.StatusOK, nil
}

// review decides on one request. It always allows.
func (h *Handler) review(request *admissionv1.AdmissionRequest) (*admissionv1.AdmissionResponse, Result) {
	response := &admissionv1.AdmissionResponse{UID: request.UID, Allowed: true}
	// A container's variables are final: a patch of an update would have it refused.
	if request.Operation != admissionv1.Create || request.Resource != pods || request.SubResource != "" {
		return response, OutOfScope
	}
	var pod corev1.Pod
	if err := unmarshal(request.Object.Raw, &pod); err != nil {
		response.Warnings = []string{"tidegate webhook: the pod cannot be read, and stays as it is"}
		return response, Unreadable
	}
	if !h.Scope.Covers(request.Namespace, pod.Annotations) {
		return response, OutOfScope
	}
	ops := Patch(&pod, h.vars)
	if len(ops) == 0 {
		return response, Unchanged
	}
	patch, err := json.Marshal(ops)
	if err != nil {
		return response, Unreadable
	}
	kind := admissionv1.PatchTypeJSONPatch
	response.Patch, response.PatchType = patch, &kind
	response.AuditAnnotations = map[string]string{"operations": strconv.Itoa(len(ops))}
	return response, Patched
}

var pods = metav1.GroupVersionResource{Version: "v1", Resource: "pods"}

// unmarshal reads JSON as the API server does, with the case of names, and
// refuses a field given twice: a patch made for one of the two might be applied
// to the other.
func unmarshal(b []byte, to any) error {
	strict, err := kjson.UnmarshalStrict(b, to, kjson.DisallowDuplicateFields)
	return errors.Join(append([]error{err}, strict...)...)
}
