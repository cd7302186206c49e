package main

import (
	"context"
	"fmt"

	"github.com/go-logr/logr"
	"github.com/open-policy-agent/cert-controller/pkg/rotator"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"
)

// newRotator keeps the certificate of a Service in the Secret of the same name,
// and its authority in the MutatingWebhookConfiguration of that name. Every
// replica runs it: a Secret is only written over the version that was read, so
// that two that start together agree on the certificate of one of them.
func newRotator(managed, certDir string) (*rotator.CertRotator, error) {
	key, err := parseNamespaced(managed)
	if err != nil {
		return nil, fmt.Errorf("--manage-certificate: %w", err)
	}
	return &rotator.CertRotator{
		SecretKey:      key,
		CertDir:        certDir,
		CAName:         key.Name + "-ca",
		CAOrganization: "tidegate",
		DNSName:        key.Name + "." + key.Namespace + ".svc",
		IsReady:        make(chan struct{}),
		Webhooks:       []rotator.WebhookInfo{{Name: key.Name, Type: rotator.Mutating}},
		FieldOwner:     "tidegate-webhook",
	}, nil
}

// rotate keeps the certificate until ctx is done. The rotator closes IsReady when
// there is one in the directory, and the API server knows its authority.
func (s *webhookServer) rotate(ctx context.Context) error {
	log := logr.FromSlogHandler(s.log.Handler())
	scheme := runtime.NewScheme()
	if err := corev1.AddToScheme(scheme); err != nil {
		return err
	}
	m, err := manager.New(s.cluster, manager.Options{
		Scheme: scheme, Logger: log, HealthProbeBindAddress: "0", Metrics: metricsserver.Options{BindAddress: "0"},
	})
	if err != nil {
		return fmt.Errorf("certificate: %w", err)
	}
	if err := rotator.AddRotator(m, s.rotator); err != nil {
		return fmt.Errorf("certificate: %w", err)
	}
	if err := m.Start(ctx); err != nil {
		return fmt.Errorf("certificate: %w", err)
	}
	return nil
}
