package config

import (
	"errors"
	"fmt"
	"io"
	"net/netip"

	"tidegate.io/tidegate/aks"
	"tidegate.io/tidegate/egress"
)

// maxFile bounds what is read of a file that the gateway's file points to: the
// largest, Microsoft's service tags, has 4 MB.
const maxFile = 64 << 20

// needs fills in what the cluster needs by the catalogue. Its rules are named
// after it, for several clusters may need the same row.
func (r *reader) needs(c *Cluster, fa fileAKS) error {
	if !fa.set {
		return lineError{r.lineOf(c.Name), fmt.Sprintf("cluster %s: aks: missing; name the output of az aks show -o json, or give cloud and region", c.Name)}
	}
	facts, err := r.facts(fa)
	if err != nil {
		return err
	}
	res, err := r.resolve(facts, fa)
	if errors.As(err, new(lineError)) {
		return err
	} else if err != nil {
		return lineError{fa.line, fmt.Sprintf("cluster %s: %v", c.Name, err)}
	}
	c.Facts = facts
	c.APIServer = res.APIServer
	c.Resolvable = res.MayResolve
	for _, rule := range res.Egress() {
		rule.ID = c.Name + ":" + rule.ID
		rule.From = c.From
		r.out.Rules = append(r.out.Rules, rule)
	}
	for _, n := range res.Notes {
		r.out.Notes = append(r.out.Notes, fmt.Sprintf("cluster %s: %s", c.Name, n.Text))
	}
	for _, s := range res.Seen {
		if p, err := egress.ParsePattern(s.Match); err == nil && s.State == aks.Benign {
			c.Benign = append(c.Benign, p)
		}
	}
	return nil
}

func (r *reader) lineOf(cluster string) int {
	for _, fc := range r.file.Clusters {
		if fc.Name.text == cluster {
			return fc.Name.line
		}
	}
	return 1
}

// resolve joins the facts and the catalogue.
func (r *reader) resolve(facts aks.Cluster, fa fileAKS) (res aks.Result, err error) {
	o := aks.Options{AsStated: fa.facts.AsStated, NoRecommended: fa.facts.Recommended != nil && !*fa.facts.Recommended}
	if o.Edition, err = optional(fa.facts.Edition, aks.Newest, aks.ParseEdition); err != nil {
		return res, err
	}
	return facts.Rules(o)
}

// tags replaces service tags in all rules, where the file of tags is given.
func (r *reader) tags() error {
	if r.file.ServiceTags.line == 0 {
		return nil
	}
	tags, err := read(r.open, r.file.ServiceTags, aks.ReadServiceTags)
	if err != nil {
		return err
	}
	r.out.Rules, err = tags.Resolve(r.out.Rules)
	return err
}

// facts reads the cluster's file, or takes the facts as they stand.
func (r *reader) facts(fa fileAKS) (c aks.Cluster, err error) {
	f := &fa.facts
	if fa.file.line != 0 {
		if f.Cloud.line != 0 || f.Region.line != 0 {
			return c, lineError{fa.line, "aks: either file, or cloud and region"}
		}
		c, err = read(r.open, fa.file, aks.Read)
	} else {
		c, err = r.planned(fa)
	}
	if err != nil {
		return c, err
	}
	if f.Extensions.line != 0 {
		es, err := read(r.open, f.Extensions, aks.ReadExtensions)
		if err != nil {
			return c, err
		}
		c = c.WithExtensions(es)
	}
	if c, err = switched(c, f); err != nil {
		return c, err
	}
	return c, valued(&c, f)
}

// switched turns features on and off.
func switched(c aks.Cluster, f *fileFacts) (aks.Cluster, error) {
	on, err := values(f.With, aks.ParseFeature)
	if err != nil {
		return c, err
	}
	off, err := values(f.Without, aks.ParseFeature)
	if err != nil {
		return c, err
	}
	for _, feature := range on {
		c = c.With(feature, "the gateway's file")
	}
	for _, feature := range off {
		c = c.Without(feature)
	}
	if f.APIAccess.line != 0 {
		if c, err = c.WithAPIAccess(aks.APIAccess(f.APIAccess.text)); err != nil {
			return c, lineError{f.APIAccess.line, err.Error()}
		}
	}
	if len(f.DNSServers) > 0 {
		c = c.With(aks.CustomDNS, "the gateway's file")
	}
	return c, nil
}

// valued sets what no cluster's file holds.
func valued(c *aks.Cluster, f *fileFacts) (err error) {
	if f.FQDN.line != 0 {
		if c.FQDN, err = value(f.FQDN, parseName); err != nil {
			return err
		}
	}
	if c.DNSServers, err = values(f.DNSServers, netip.ParseAddr); err != nil {
		return err
	}
	if c.APIServerAddrs, err = values(f.APIServerAddrs, netip.ParseAddr); err != nil {
		return err
	}
	for _, w := range f.KeyVaults {
		c.KeyVaults = append(c.KeyVaults, w.text)
	}
	return nil
}

func (r *reader) planned(fa fileAKS) (c aks.Cluster, err error) {
	f := &fa.facts
	if f.Cloud.line == 0 || f.Region.line == 0 {
		return c, lineError{fa.line, "aks: cloud and region, or the name of the cluster's file"}
	}
	cloud, err := value(f.Cloud, aks.ParseCloud)
	if err != nil {
		return c, err
	}
	return value(f.Region, func(region string) (aks.Cluster, error) { return aks.Plan(cloud, region) })
}

// read opens a file that the text names and reads it whole.
func read[T any](open Open, name word, parse func(io.Reader) (T, error)) (v T, err error) {
	rc, err := open(name.text)
	if err != nil {
		return v, lineError{name.line, err.Error()}
	}
	defer rc.Close()
	if v, err = parse(io.LimitReader(rc, maxFile)); err != nil {
		return v, lineError{name.line, fmt.Sprintf("%s: %v", name.text, err)}
	}
	return v, nil
}
