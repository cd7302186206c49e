package main

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"tidegate.io/tidegate/egress"
	"tidegate.io/tidegate/why"
)

// advise draws the conclusion: whether it was the gateway, and what to change.
// With a format, it is said in that.
func (i *whyItem) advise(asked bool, format string) error {
	if i.Inside {
		i.say("No firewall is in the way of this, so there is no rule to add.")
		return nil
	}
	var missing []whyEndpoint
	permitted := 0
	for _, k := range i.Reaching {
		switch {
		case k.Denied != nil && *k.Denied != egress.Unreasoned:
			missing = append(missing, k)
		case k.Permitted != "":
			permitted++
		case !asked && len(i.Denials) > 0 && i.denied(k.Endpoint):
			missing = append(missing, k)
		}
	}
	i.adviseOnFlows(asked && len(missing) > 0)
	switch {
	case format != "" && (len(missing) > 0 || !asked && len(i.Reaching) > 0):
		return i.changeIn(format, missing)
	case len(missing) > 0:
		i.change(missing)
	case asked && permitted > 0 && permitted == len(i.Reaching):
		i.say("The gateway's policy permits it. If it still fails, look at the DNS of the network (does it point to the gateway?), at routes, and at other firewalls; tidegate check on the node tells where it breaks.")
	case !asked && i.Flows == nil:
		i.say("Run tidegate check on a node to see where it breaks now; with --flows and --config this also says whether the gateway denied it.")
	}
	if i.APIServer && !asked {
		i.say("The API server is reached by its own name, rule core/apiserver, which comes from the cluster's JSON.")
	}
	return nil
}

// changeIn writes the missing rules in the user's format; where nothing says what is missing, those of all that was
// being reached.
func (i *whyItem) changeIn(format string, missing []whyEndpoint) error {
	if len(missing) == 0 {
		missing = i.Reaching
		i.say("Unless the firewall has these rules already, add them.")
	} else {
		i.say("Add these rules to the firewall.")
	}
	var rules []egress.Rule
	for n, k := range missing {
		r := egress.Rule{ID: fmt.Sprintf("own/%d", n+1), To: []egress.Endpoint{k.Endpoint}, Why: "needed by …"}
		if len(k.Rules) > 0 {
			r.ID, r.Why = fmt.Sprintf("%s/%d", k.Rules[0], n+1), "what every such cluster needs"
		}
		rules = append(rules, r)
	}
	text, gaps, err := rulesIn(format, rules)
	for _, g := range gaps {
		i.say("%s", g)
	}
	i.Change = text
	return err
}

func (i *whyItem) say(format string, args ...any) {
	i.Advice = append(i.Advice, fmt.Sprintf(format, args...))
}

// adviseOnFlows says what the flow log proves; deniedNow is what the policy says today.
func (i *whyItem) adviseOnFlows(deniedNow bool) {
	switch {
	case i.Flows == nil:
	case len(i.Denials) > 0:
		var told []egress.Reason
		for _, d := range i.Denials {
			if !slices.Contains(told, d.Reason) {
				told = append(told, d.Reason)
				i.say("%s denied it: %s", cmp.Or(d.By, "The gateway"), d.Reason.Advice())
			}
		}
	case *i.Flows == 0:
		i.say("The flow log holds nothing of that time, so it proves nothing: the traffic does not pass the gateway, or the log is of another time.")
	case deniedNow:
		i.say("The flow log of that time holds no denial of it, and the policy as it is now denies it: the text and the log are of different times, or the traffic does not pass the gateway.")
	default:
		i.say("The log holds no denial of it in that time, and %d other flows: it was not this firewall. Look at routes, DNS, network policies and other firewalls.", *i.Flows)
	}
}

// denied reports whether a denial is of this endpoint.
func (i *whyItem) denied(e egress.Endpoint) bool {
	return slices.ContainsFunc(i.Denials, func(d why.Denial) bool {
		switch h := e.Host.(type) {
		case egress.Pattern:
			return h.Match(d.Name)
		case egress.Net:
			return strings.HasPrefix(d.To, h.Addr().String()+":")
		}
		return false
	})
}

// change says what to write into the gateway's file: what a cluster needs comes from its JSON or its features, and only
// what no cluster needs is a rule of one's own.
func (i *whyItem) change(missing []whyEndpoint) {
	if slices.ContainsFunc(i.Denials, func(d why.Denial) bool { return d.By != "" }) {
		i.changeElsewhere(missing)
		return
	}
	var own []whyEndpoint
	var features []string
	for _, k := range missing {
		switch {
		case len(k.Rules) == 0:
			own = append(own, k)
		case len(k.When) > 0:
			for _, w := range k.When {
				if !slices.Contains(features, w) {
					features = append(features, w)
				}
			}
			i.say("%s is rule %s, which a cluster has with %s.", k.Endpoint, k.Rules[0], strings.Join(k.When, ", "))
		default:
			i.say("%s is rule %s, which every cluster has: give the gateway's file the cluster's JSON under aks, of the right cloud and region.", k.Endpoint, k.Rules[0])
		}
	}
	if len(features) > 0 {
		i.say("Renew the JSON that the gateway's file names under aks (az aks show -o json) so that it shows these features, or list them under with.")
	}
	if len(own) == 0 {
		return
	}
	i.say("No cluster needs this by itself; if the workload is to reach it, add the rule to the gateway's file and run tidegate gateway reload.")
	var b strings.Builder
	b.WriteString("rules:\n")
	for _, k := range own {
		fmt.Fprintf(&b, "  - id: own/%s\n    to: [%q]\n    why: needed by …\n", strings.Trim(strings.NewReplacer("*", "any", ":", "-", "/", "-").Replace(k.Endpoint.Host.String()), "-."), k.Endpoint)
	}
	i.Change = b.String()
}

// changeElsewhere says what to add to a firewall that is not the gateway.
func (i *whyItem) changeElsewhere(missing []whyEndpoint) {
	for _, k := range missing {
		if len(k.Rules) > 0 {
			i.say("Add %s to the firewall: it is rule %s. tidegate export writes all that the cluster needs in the firewall's format.", k.Endpoint, k.Rules[0])
		} else {
			i.say("No cluster needs %s by itself; if the workload is to reach it, add it to the firewall.", k.Endpoint)
		}
	}
}

func printWhy(w io.Writer, p paint, items []whyItem) {
	if len(items) == 0 {
		fmt.Fprintln(w, "Nothing in it is known.")
		return
	}
	for n, i := range items {
		if n > 0 {
			fmt.Fprintln(w)
		}
		times := ""
		if i.Count > 1 {
			times = fmt.Sprintf("  (%d times)", i.Count)
		}
		fmt.Fprintf(w, "%s%s\n", p.bold(wrap("", fmt.Sprintf("line %d: %s", i.Line, i.Text))), times)
		for _, part := range []struct{ word, text string }{{"What", i.Doing}, {"How", i.How}} {
			if part.text != "" {
				fmt.Fprintf(w, "  %-9s %s\n", part.word, wrap(strings.Repeat(" ", 12), part.text))
			}
		}
		i.printReaching(w, p)
		i.printDenials(w, p)
		word := "Do"
		for _, a := range i.Advice {
			fmt.Fprintf(w, "  %-9s %s\n", word, wrap(strings.Repeat(" ", 12), a))
			word = ""
		}
		if i.Change != "" {
			fmt.Fprintf(w, "\n%s", indent("    ", i.Change))
		}
	}
}

func indent(by, text string) string {
	return by + strings.ReplaceAll(strings.TrimSuffix(text, "\n"), "\n", "\n"+by) + "\n"
}

func (i *whyItem) printReaching(w io.Writer, p paint) {
	var rows [][]string
	for _, k := range i.Reaching {
		rule := "no rule of any cluster"
		if len(k.Rules) > 0 {
			rule = strings.Join(k.Rules, ", ")
			if k.Need != "" {
				rule += " (" + k.Need + ")"
			}
		}
		verdict := ""
		switch {
		case k.Denied != nil:
			verdict = p.red("the gateway denies it: " + k.Denied.String())
		case k.Permitted != "":
			verdict = p.green("the gateway permits it: " + k.Permitted)
		}
		rows = append(rows, []string{k.Endpoint.String(), rule, verdict})
	}
	if i.APIServer && !slices.ContainsFunc(i.Reaching, func(k whyEndpoint) bool { return slices.Contains(k.Rules, "core/apiserver") }) {
		rows = append(rows, []string{"the API server, TCP 443", "core/apiserver (required)", ""})
	}
	if len(rows) > 0 {
		fmt.Fprintln(w, "  Reaching")
		writeColumns(w, "            ", rows)
	}
}

func (i *whyItem) printDenials(w io.Writer, p paint) {
	if len(i.Denials) == 0 {
		return
	}
	fmt.Fprintln(w, "  Denied")
	for _, d := range i.Denials {
		to := d.To
		if !d.Name.IsZero() {
			to = d.Name.String()
		}
		fmt.Fprintf(w, "            %s  %s  %d×, %s to %s, from %s\n", to, p.red(d.Reason.String()), d.Count,
			d.First.Format(time.TimeOnly), d.Last.Format(time.TimeOnly), d.From)
	}
}
