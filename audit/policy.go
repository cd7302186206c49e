package audit

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
)

// maxPolicy bounds a policy's file: the largest Azure Firewall policy has 10 MB,
// and a Terraform state holds other things too.
const maxPolicy = 64 << 20

// maxGrants bounds what a file's rules unfold to (destinations times ports), so
// that a small file cannot take all memory.
const maxGrants = 1 << 20

// Format is the product whose policy was read.
type Format string

// The formats.
const (
	AzureFirewall Format = "azure-firewall"
	Terraform     Format = "terraform" // Azure's resources, as Terraform shows them
	NSG           Format = "nsg"
	Cilium        Format = "cilium"
	Squid         Format = "squid"
	List          Format = "list"
)

// Policy is what an existing firewall permits. It does not change once read.
type Policy struct {
	Format Format
	Unread []string // what was not understood, and so covers nothing

	grants   []grant
	dnsProxy *bool // whether the firewall answers its clients' DNS; nil: not in the file
	bumped   []bump
	splices  bool      // Squid stands in the way of the traffic, and judges TLS by its ClientHello
	unclear  []Finding // what a reader could not say in grants
	nsgs     []string  // the network security groups in it

	owners []string          // the firewall policies that have rule collection groups here, in lower case
	bases  map[string]string // what a policy inherits from; "" is nothing
}

// bump is a set of names whose TLS is terminated, whatever permits them.
type bump struct {
	at    string
	names names
}

// ReadPolicy reads a policy in any of the formats, which it tells apart by what
// is in the file; name is only for errors. It fails rather than read half a file.
func ReadPolicy(name string, r io.Reader) (*Policy, error) {
	p, err := readPolicy(r)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	if err := p.oneBarrier(); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	p.lineage()
	return p, nil
}

// oneBarrier keeps barriers that stand behind each other apart: a packet has to
// pass all of them, and their rules must not be taken for those of one.
func (p *Policy) oneBarrier() error {
	firewall := slices.ContainsFunc(p.grants, func(g grant) bool { return !g.nsg })
	switch {
	case len(p.nsgs) == 0:
	case firewall:
		p.unread("", "network security groups (%s), which stand before the firewall: give each a file of its own", list(p.nsgs))
		p.grants = slices.DeleteFunc(p.grants, func(g grant) bool { return g.nsg })
		if p.Format == NSG {
			p.Format = AzureFirewall
		}
	case len(p.nsgs) > 1:
		return fmt.Errorf("several network security groups (%s), which do not add up: want a file of one", list(p.nsgs))
	}
	return nil
}

// Join returns policies of one firewall as one, such as its rule collection
// groups that were shown one by one; names tell their lines apart. Formats whose
// order spans files, or whose files stand behind each other, are refused.
func Join(names []string, policies []*Policy) (*Policy, error) {
	if len(policies) == 1 {
		return policies[0], nil
	}
	all := &Policy{}
	for i, p := range policies {
		switch {
		case p.Format == Squid || p.Format == NSG:
			return nil, fmt.Errorf("%s: want one file of the format %s: several do not add up", names[i], p.Format)
		case i > 0 && p.Format != all.Format:
			return nil, fmt.Errorf("%s: format %s, but %s has %s", names[i], p.Format, names[0], all.Format)
		}
		all.Format = p.Format
		if p.dnsProxy != nil && (all.dnsProxy == nil || *p.dnsProxy) {
			all.dnsProxy = p.dnsProxy
		}
		for _, g := range p.grants {
			if p.Format == List {
				g.at = names[i] + " " + g.at
			}
			if err := all.add(g); err != nil {
				return nil, err
			}
		}
		all.unclear = append(all.unclear, p.unclear...)
		for _, u := range p.Unread {
			all.unread(names[i], "%s", u)
		}
		for _, owner := range p.owners {
			all.groupOf(owner)
		}
		for child, base := range p.bases {
			all.inherits(child, base)
		}
	}
	all.lineage()
	return all, nil
}

func readPolicy(r io.Reader) (*Policy, error) {
	b, err := io.ReadAll(io.LimitReader(r, maxPolicy+1))
	if err != nil {
		return nil, err
	}
	if len(b) > maxPolicy {
		return nil, fmt.Errorf("longer than %d MiB", maxPolicy>>20)
	}
	b = bytes.TrimSpace(bytes.TrimPrefix(b, []byte("\xef\xbb\xbf")))
	p := &Policy{}
	switch {
	case len(b) == 0:
		return nil, errors.New("empty input")
	case b[0] == '{' || b[0] == '[':
		err = p.readJSON(b)
	case yamlList.Match(b):
		err = p.readYAMLList(b)
	case bytes.Contains(b, []byte("cilium.io/")):
		err = p.readCilium(b)
	case looksLikeSquid(b):
		err = p.readSquid(b)
	default:
		err = p.readList(b)
	}
	if err != nil {
		return nil, err
	}
	if len(p.grants) == 0 && len(p.Unread) == 0 && p.dnsProxy == nil && len(p.unclear) == 0 && p.Format != NSG {
		return nil, errors.New("no rule in it; want an Azure Firewall policy's rule collection groups, terraform show -json, a network security group, Cilium policies, squid.conf, or a list")
	}
	return p, nil
}

// maxUnread bounds the remarks on what was not understood.
const maxUnread = 1000

func (p *Policy) unread(at, format string, args ...any) {
	if len(p.Unread) < maxUnread {
		p.Unread = append(p.Unread, strings.TrimPrefix(at+": ", ": ")+fmt.Sprintf(format, args...))
	}
}

func (p *Policy) add(g grant) error {
	if len(p.grants) == maxGrants {
		return fmt.Errorf("more than %d destinations", maxGrants)
	}
	p.grants = append(p.grants, g)
	return nil
}
