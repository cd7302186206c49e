package check

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
)

// maxManifest is what registries agree on as the largest manifest (OCI distribution specification, "Pushing manifests").
const maxManifest = 4 << 20

// manifestTypes are what a node takes, as containerd and oras ask for them.
var manifestTypes = []string{
	"application/vnd.oci.image.index.v1+json", "application/vnd.docker.distribution.manifest.list.v2+json",
	"application/vnd.oci.image.manifest.v1+json", "application/vnd.docker.distribution.manifest.v2+json",
}

// probeRegistry asks for /v2/, which every registry has (OCI distribution specification, end-1).
func probeRegistry(ctx context.Context, h *Host, t Target) error {
	a, err := h.askRegistry(ctx, t, "/v2/", nil, maxBody)
	switch {
	case err != nil:
		return err
	case a.code == http.StatusOK:
		return nil
	}
	return registryFault(t, a)
}

// probeArtefact asks for a manifest as a node does, signing in where the registry wants it. It asks for the whole of it,
// since what a registry says of a failure is in the body.
func probeArtefact(ctx context.Context, h *Host, t Target) error {
	repository, reference := t.Image, "latest"
	if r, digest, ok := strings.Cut(t.Image, "@"); ok {
		repository, reference = r, digest
	} else if i := strings.LastIndexByte(t.Image, ':'); i > strings.LastIndexByte(t.Image, '/') {
		repository, reference = t.Image[:i], t.Image[i+1:]
	}
	header := http.Header{"Accept": {strings.Join(manifestTypes, ", ")}}
	a, err := h.askRegistry(ctx, t, "/v2/"+repository+"/manifests/"+reference, header, maxManifest)
	if err != nil {
		return err
	}
	media, _, _ := strings.Cut(a.header.Get("Content-Type"), ";")
	switch {
	case a.code != http.StatusOK:
		return registryFault(t, a)
	case !isManifest(media):
		return fault(NotRegistry, "the answer is %s and a %q, not a manifest", a.status, clip(media))
	}
	sum := sha256.Sum256(a.body)
	got := "sha256:" + hex.EncodeToString(sum[:])
	for _, want := range []string{reference, a.header.Get("Docker-Content-Digest")} {
		if strings.HasPrefix(want, "sha256:") && want != got {
			return fault(WrongDigest, "%d bytes that are not %s", len(a.body), clip(want))
		}
	}
	if t.Platform == "" {
		return nil
	}
	return hasPlatform(a.body, t.Platform)
}

func isManifest(media string) bool {
	for _, m := range manifestTypes {
		if m == strings.TrimSpace(media) {
			return true
		}
	}
	return false
}

// hasPlatform looks for the entry that a node takes: nodes choose by the system's version too.
func hasPlatform(index []byte, platform string) error {
	var x struct {
		Manifests []struct {
			Platform struct {
				OS, Architecture string
				OSVersion        string `json:"os.version"`
			}
		}
	}
	if err := json.Unmarshal(index, &x); err != nil {
		return fault(NotRegistry, "the manifest is not JSON")
	}
	for _, m := range x.Manifests {
		p := m.Platform.OS + "/" + m.Platform.Architecture
		if p == platform || p+":"+m.Platform.OSVersion == platform {
			return nil
		}
	}
	return fault(NoPlatform, "none of its %d entries is for %s", len(x.Manifests), platform)
}

// askRegistry asks once, and once more with a token if the registry wants one and gives it.
func (h *Host) askRegistry(ctx context.Context, t Target, path string, header http.Header, limit int64) (answer, error) {
	a, err := h.request(ctx, t, path, header, limit)
	if err != nil || a.code != http.StatusUnauthorized {
		return a, err
	}
	authorization, err := h.signIn(ctx, t, a.header.Get("WWW-Authenticate"))
	if err != nil {
		return a, err
	}
	signed := header.Clone()
	if signed == nil {
		signed = http.Header{}
	}
	signed.Set("Authorization", authorization)
	return h.request(ctx, t, path, signed, limit)
}

func (h *Host) request(ctx context.Context, t Target, path string, header http.Header, limit int64) (answer, error) {
	name := t.Name.String()
	c, err := h.shakeHands(ctx, t, hello{name: name, alpn: "http/1.1", verify: h.trusting(name, h.Roots)})
	if err != nil {
		return answer{}, err
	}
	defer func() { _ = c.Close() }()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+authority(t)+path, nil)
	if err != nil {
		return answer{}, fault(Interrupted, "%s", err)
	}
	for k, v := range header {
		req.Header[k] = v
	}
	return send(c, req, false, limit)
}

func authority(t Target) string {
	if t.Port == 443 {
		return t.Name.String()
	}
	return net.JoinHostPort(t.Name.String(), strconv.Itoa(int(t.Port)))
}

// signIn answers a challenge (RFC 7235; the Bearer form is the distribution project's token specification). A registry
// that sends its clients elsewhere to sign in is not followed: whoever forges its answer would be told the credentials.
func (h *Host) signIn(ctx context.Context, t Target, challenge string) (string, error) {
	scheme, rest, _ := strings.Cut(challenge, " ")
	switch {
	case strings.EqualFold(scheme, "Basic") && h.Credentials != nil:
		return h.basic(), nil
	case strings.EqualFold(scheme, "Basic"):
		return "", fault(WantsSignIn, "it wants a user and a password")
	case !strings.EqualFold(scheme, "Bearer"):
		return "", fault(NotRegistry, "the answer is 401 with the challenge %q", clip(challenge))
	}
	parameters := challengeParameters(rest)
	realm, err := url.Parse(parameters["realm"])
	if err != nil || realm.Scheme != "https" || realm.Host != authority(t) {
		return "", fault(WantsSignIn, "it sends its clients to %q to sign in, another host", clip(parameters["realm"]))
	}
	q := url.Values{}
	for _, k := range []string{"service", "scope"} {
		if parameters[k] != "" {
			q.Set(k, parameters[k])
		}
	}
	header := http.Header{}
	if h.Credentials != nil {
		header.Set("Authorization", h.basic())
	}
	a, err := h.request(ctx, t, realm.EscapedPath()+"?"+q.Encode(), header, maxBody)
	if err != nil {
		return "", err
	}
	var token struct {
		Token       string `json:"token"`
		AccessToken string `json:"access_token"`
	}
	if a.code == http.StatusOK && json.Unmarshal(a.body, &token) == nil && token.Token+token.AccessToken != "" {
		if token.Token == "" {
			token.Token = token.AccessToken
		}
		return "Bearer " + token.Token, nil
	}
	if h.Credentials == nil {
		return "", fault(WantsSignIn, "it gives no token to strangers: %s", a.status)
	}
	return "", fault(SignInRefused, "it gives no token: %s", a.status)
}

func (h *Host) basic() string {
	password, _ := h.Credentials.Password()
	r := http.Request{Header: http.Header{}}
	r.SetBasicAuth(h.Credentials.Username(), password)
	return r.Header.Get("Authorization")
}

// challengeParameters reads key="value" pairs; a comma within quotes is part of the value, as in scopes.
func challengeParameters(s string) map[string]string {
	out := map[string]string{}
	for s != "" {
		key, rest, ok := strings.Cut(s, "=")
		if !ok {
			return out
		}
		value := ""
		if quoted, is := strings.CutPrefix(rest, `"`); is {
			value, s, _ = strings.Cut(quoted, `"`)
		} else {
			value, s, _ = strings.Cut(rest, ",")
		}
		out[strings.ToLower(strings.Trim(key, " ,"))] = strings.TrimSpace(value)
	}
	return out
}

// registryFault sorts an answer that is no success.
func registryFault(t Target, a answer) error {
	if who := blockPage(t, a); who != "" {
		return fault(HTTPBlocked, "the answer is %s, a page of %s", a.status, who)
	}
	said := a.status
	if why := registryError(a.body); why != "" {
		said += ": " + why
	}
	switch {
	case a.code == http.StatusUnauthorized:
		return fault(SignInRefused, "with a token, the answer is %s", said)
	case a.code == http.StatusForbidden:
		return fault(PullDenied, "the answer is %s", said)
	case a.code == http.StatusNotFound && t.Kind == Artefact:
		return fault(NoArtefact, "the answer is %s", said)
	case a.code >= 500, a.code == http.StatusTooManyRequests:
		return fault(ServerError, "the answer is %s", said)
	}
	return fault(NotRegistry, "the answer is %s", said)
}

// registryError is the first error that a registry says, in its own form; empty in any other.
func registryError(body []byte) string {
	var e struct {
		Errors []struct{ Code, Message string }
	}
	if json.Unmarshal(body, &e) != nil || len(e.Errors) == 0 {
		return ""
	}
	return clip(strings.TrimSpace(e.Errors[0].Code + " " + e.Errors[0].Message))
}
