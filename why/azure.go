package why

import (
	"bytes"
	"encoding/json"
	"net/netip"
	"net/url"
	"regexp"
	"strings"
	"time"

	"tidegate.io/tidegate/egress"
)

// azureFirewall is what [Denial.By] says of its denials.
const azureFirewall = "Azure Firewall"

// azureLine is a line of Azure Firewall's log: the resource log, whose fields are in properties, or a row as Log
// Analytics gives it, structured or with everything in one sentence.
type azureLine struct {
	Category, Type      string
	Time, TimeGenerated time.Time
	Properties          *azureRow
	Msg                 string `json:"msg_s"`
	azureRow
}

type azureRow struct {
	Protocol        string
	SourceIP        string `json:"SourceIp"`
	DestinationIP   string `json:"DestinationIp"`
	DestinationPort portText
	Fqdn            string
	TargetURL       string `json:"TargetUrl"`
	Action          string
	Sentence        string `json:"msg"`
}

// portText is a port that is written as a number or as a string.
type portText string

// UnmarshalJSON takes both.
func (p *portText) UnmarshalJSON(b []byte) error {
	*p = portText(bytes.Trim(b, `"`))
	return nil
}

// isAzure reports whether a line is one of Azure Firewall's rather than of a flow log.
func isAzure(line []byte) bool {
	return bytes.Contains(line, []byte("AZFW")) || bytes.Contains(line, []byte("AzureFirewall"))
}

// readAzure reads a decided connection; false for lines about something else.
func readAzure(line []byte) (egress.Flow, bool, error) {
	var l azureLine
	if err := json.Unmarshal(line, &l); err != nil {
		return egress.Flow{}, false, err
	}
	row := l.azureRow
	if l.Properties != nil {
		row = *l.Properties
	}
	if l.Msg != "" {
		row.Sentence = l.Msg
	}
	f := egress.Flow{Time: l.Time}
	if f.Time.IsZero() {
		f.Time = l.TimeGenerated
	}
	row.spell()
	switch strings.ToLower(row.Action) {
	case "allow":
		f.Verdict.Action = egress.Allow
	case "deny":
		f.Verdict = egress.Denied(egress.NoRule)
	default:
		return f, false, nil
	}
	f.Conn = row.conn()
	if !f.Conn.Name.IsZero() && f.Verdict.Action == egress.Deny {
		f.Verdict = egress.Denied(egress.NameNotAllowed)
	}
	return f, true, nil
}

// sentence is how the log said it before it had fields.
var sentence = regexp.MustCompile(`^(\S+)\s+request from (\S+?):\d+ to (\S+?)(?::(\d+))?\. .*?Action: (\w+)`)

// spell takes a sentence apart.
func (r *azureRow) spell() {
	m := sentence.FindStringSubmatch(r.Sentence)
	if m == nil {
		return
	}
	r.Protocol, r.SourceIP, r.DestinationPort, r.Action = m[1], m[2], portText(m[4]), m[5]
	if _, err := netip.ParseAddr(m[3]); err == nil {
		r.DestinationIP = m[3]
	} else {
		r.Fqdn = m[3]
	}
}

// conn is what the row says of the connection, as far as it can be read.
func (r *azureRow) conn() egress.Conn {
	var c egress.Conn
	c.Proto, _ = egress.ParseProto(strings.ToLower(r.Protocol)) // none: neither TCP nor UDP
	port, _ := egress.ParsePorts(string(r.DestinationPort))
	src, _ := netip.ParseAddr(r.SourceIP)
	dst, _ := netip.ParseAddr(r.DestinationIP)
	c.Src, c.Dst = netip.AddrPortFrom(src, 0), netip.AddrPortFrom(dst, port.First)
	host := r.Fqdn
	if u, err := url.Parse(r.TargetURL); err == nil && host == "" {
		host = u.Hostname()
	}
	c.Name, _ = egress.ParseName(host)
	return c
}
