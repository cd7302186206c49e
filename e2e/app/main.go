// Command app is all that the images of the end-to-end tests hold: the container that keeps a pod's namespaces, and the
// workload, a client of the API server that believes its variables as client libraries do.
package main

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"
)

// account is where the kubelet puts a pod's token and its API server's authority.
const account = "/var/run/secrets/kubernetes.io/serviceaccount/"

func main() {
	what := "pause"
	if len(os.Args) > 1 {
		what = os.Args[1]
	}
	switch what {
	case "pause":
		stop := make(chan os.Signal, 1)
		signal.Notify(stop, syscall.SIGINT, syscall.SIGTERM)
		<-stop
	case "ask": // for ever, a line a second
		for n := 1; ; n++ {
			fmt.Printf("%d %s\n", n, ask())
			time.Sleep(time.Second)
		}
	case "once":
		fmt.Println(ask())
	case "env":
		for _, e := range os.Environ() {
			fmt.Println(e)
		}
	default:
		fmt.Fprintf(os.Stderr, "app: %q: want pause, ask, once or env\n", what)
		os.Exit(2)
	}
}

// ask asks the API server who this pod is, on a new connection.
func ask() string {
	host, port := os.Getenv("KUBERNETES_SERVICE_HOST"), os.Getenv("KUBERNETES_SERVICE_PORT")
	who, err := review("https://" + net.JoinHostPort(host, port))
	if err != nil {
		return fmt.Sprintf("at %s: %v", host, err)
	}
	return fmt.Sprintf("at %s: I am %s", host, who)
}

func review(server string) (string, error) {
	token, err := os.ReadFile(account + "token")
	if err != nil {
		return "", err
	}
	ca, err := os.ReadFile(account + "ca.crt")
	if err != nil {
		return "", err
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(ca)
	client := http.Client{
		Timeout:   5 * time.Second,
		Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}, DisableKeepAlives: true},
	}
	body := strings.NewReader(`{"apiVersion":"authentication.k8s.io/v1","kind":"SelfSubjectReview"}`)
	r, err := http.NewRequest(http.MethodPost, server+"/apis/authentication.k8s.io/v1/selfsubjectreviews", body)
	if err != nil {
		return "", err
	}
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("Authorization", "Bearer "+string(token))
	resp, err := client.Do(r)
	if err != nil {
		return "", err
	}
	defer func() { _ = resp.Body.Close() }()
	text, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	if err != nil {
		return "", err
	}
	var answer struct {
		Status struct{ UserInfo struct{ Username string } }
	}
	if err := json.Unmarshal(text, &answer); err != nil || answer.Status.UserInfo.Username == "" {
		return "", fmt.Errorf("%s: %s", resp.Status, text)
	}
	return answer.Status.UserInfo.Username, nil
}
