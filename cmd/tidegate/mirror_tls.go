package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"slices"
	"time"
)

// How long the mirror's own certificates are good for.
const (
	authorityFor   = 5 * 365 * 24 * time.Hour // nodes are told of a new one by hand
	certificateFor = 90 * 24 * time.Hour
	renewBefore    = 30 * 24 * time.Hour
	lookEvery      = time.Hour
)

// ownCertificate is a certificate that the mirror makes for itself, and the
// authority that nodes trust. The authority can only speak for the mirror's names,
// so that its key, should it be stolen, is of no use for any other.
type ownCertificate struct {
	dir   string
	names []string // DNS names and addresses; none: what this machine is called
}

func (o ownCertificate) files() (certificate, key string) {
	return filepath.Join(o.dir, "tls.crt"), filepath.Join(o.dir, "tls.key")
}

// renew makes a new certificate before the old one ends. What fails is told and tried
// again: a full disk a month too early is no reason to stop serving.
func (o ownCertificate) renew(ctx context.Context, log *slog.Logger) {
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			if err := o.make(time.Now()); err != nil {
				log.Error("renew the mirror's certificate; the old one serves, and it is tried again", "err", err)
			}
		}
	}
}

// make makes what is missing, about to end, or for other names.
func (o ownCertificate) make(now time.Time) error {
	names := o.names
	if len(names) == 0 {
		host, err := os.Hostname()
		if err != nil {
			return fmt.Errorf("certificate: names: %w", err)
		}
		names = []string{host, "localhost", "127.0.0.1", "::1"}
	}
	if err := os.MkdirAll(o.dir, 0o700); err != nil {
		return err
	}
	ca, caKey, err := o.authority(now, names)
	if err != nil {
		return fmt.Errorf("certificate: authority: %w", err)
	}
	certificate, key := o.files()
	have, err := tls.LoadX509KeyPair(certificate, key)
	if err == nil && now.Before(have.Leaf.NotAfter.Add(-renewBefore)) && sameNames(have.Leaf, names) && have.Leaf.CheckSignatureFrom(ca) == nil {
		return nil
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("certificate: %w", err)
	}
	form := &x509.Certificate{
		Subject: pkix.Name{CommonName: names[0]}, NotBefore: now.Add(-time.Hour), NotAfter: now.Add(certificateFor),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	form.DNSNames, form.IPAddresses = splitNames(names)
	return writePair(certificate, key, form, ca, caKey)
}

// authority reads the authority, or makes one where there is none for the names.
func (o ownCertificate) authority(now time.Time, names []string) (*x509.Certificate, *ecdsa.PrivateKey, error) {
	certificate, key := filepath.Join(o.dir, "ca.crt"), filepath.Join(o.dir, "ca.key")
	for range 2 {
		pair, err := tls.LoadX509KeyPair(certificate, key)
		if err == nil && now.Before(pair.Leaf.NotAfter.Add(-certificateFor)) && mayName(pair.Leaf, names) {
			k, ok := pair.PrivateKey.(*ecdsa.PrivateKey)
			if !ok {
				return nil, nil, fmt.Errorf("%s: not of the mirror's making", key)
			}
			return pair.Leaf, k, nil
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, nil, err
		}
		form := &x509.Certificate{
			Subject: pkix.Name{CommonName: "tidegate mirror " + names[0]}, NotBefore: now.Add(-time.Hour), NotAfter: now.Add(authorityFor),
			IsCA: true, BasicConstraintsValid: true, MaxPathLenZero: true, KeyUsage: x509.KeyUsageCertSign,
			PermittedDNSDomainsCritical: true,
		}
		var addresses []net.IP
		form.PermittedDNSDomains, addresses = splitNames(names)
		for _, a := range addresses {
			form.PermittedIPRanges = append(form.PermittedIPRanges, &net.IPNet{IP: a, Mask: net.CIDRMask(8*len(a), 8*len(a))})
		}
		if err := writePair(certificate, key, form, nil, nil); err != nil {
			return nil, nil, err
		}
	}
	return nil, nil, errors.New("made one that does not fit")
}

func splitNames(names []string) (dns []string, addresses []net.IP) {
	for _, n := range names {
		if a := net.ParseIP(n); a == nil {
			dns = append(dns, n)
		} else if four := a.To4(); four != nil {
			addresses = append(addresses, four)
		} else {
			addresses = append(addresses, a)
		}
	}
	return dns, addresses
}

func sameNames(c *x509.Certificate, names []string) bool {
	dns, addresses := splitNames(names)
	return slices.Equal(c.DNSNames, dns) && slices.EqualFunc(c.IPAddresses, addresses, net.IP.Equal)
}

// mayName reports whether an authority was made for exactly these names.
func mayName(ca *x509.Certificate, names []string) bool {
	dns, addresses := splitNames(names)
	return slices.Equal(ca.PermittedDNSDomains, dns) && slices.EqualFunc(ca.PermittedIPRanges, addresses, func(n *net.IPNet, a net.IP) bool { return n.IP.Equal(a) })
}

// writePair makes a key and a certificate of a form, signed by ca or by itself.
// The key is written first: a certificate that is there has one.
func writePair(certificate, key string, form, ca *x509.Certificate, caKey *ecdsa.PrivateKey) error {
	own, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	if ca == nil {
		ca, caKey = form, own
	}
	if form.SerialNumber, err = rand.Int(rand.Reader, serialLimit()); err != nil {
		return err
	}
	der, err := x509.CreateCertificate(rand.Reader, form, ca, own.Public(), caKey)
	if err != nil {
		return err
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(own)
	if err != nil {
		return err
	}
	if err := replaceFile(key, func(f *os.File) error {
		return pem.Encode(f, &pem.Block{Type: "PRIVATE KEY", Bytes: keyDER})
	}); err != nil {
		return err
	}
	return replaceFile(certificate, func(f *os.File) error {
		return errors.Join(f.Chmod(0o644), pem.Encode(f, &pem.Block{Type: "CERTIFICATE", Bytes: der}))
	})
}

// serialLimit bounds a serial number to what RFC 5280 section 4.1.2.2 allows.
func serialLimit() *big.Int { return new(big.Int).Lsh(big.NewInt(1), 127) }
