package kernel

// sysctls returns the settings that the rules rely on. Forwarding comes last, so
// that no packet passes before the rules stand.
func sysctls() []Sysctl {
	return []Sysctl{
		{Key: "net/netfilter/nf_conntrack_tcp_loose", Value: "0", Why: "a connection begins with its SYN, or it is invalid"},
		{Key: "net/netfilter/nf_conntrack_tcp_be_liberal", Value: "0", Why: "segments outside the window are invalid"},
		{Key: "net/netfilter/nf_conntrack_checksum", Value: "1", Why: "segments that the server would drop are invalid"},
		{Key: "net/netfilter/nf_conntrack_acct", Value: "1", Why: "a flow's end is logged with its bytes"},
		{Key: "net/netfilter/nf_conntrack_timestamp", Value: "1", Why: "a flow's end is logged with its times"},
		{Key: "net/netfilter/nf_conntrack_tcp_timeout_syn_sent", Value: "30", If: "120", Why: "what is never answered does not fill conntrack for long; a client's next SYN starts it again"},
		{Key: "net/netfilter/nf_conntrack_tcp_timeout_syn_recv", Value: "30", If: "60", Why: "as for what the client never confirms"},
		{Key: "net/ipv4/tcp_early_demux", Value: "0", Why: "forwarded packets are no socket's; those of an earlier version's proxy have foreign addresses, also in TIME_WAIT, and must not take them"},
		{Key: "net/ipv4/icmp_ratelimit", Value: "10", Why: "milliseconds between refusals to one client, which falls back from QUIC on each"},
		{Key: "net/ipv6/icmp/ratelimit", Value: "10", Why: "as for IPv4"},
		{Key: "net/ipv4/conf/*/send_redirects", Value: "0", Why: "clients are not told of a way around the gateway"},
		{Key: "net/ipv4/conf/*/accept_redirects", Value: "0", Why: "nobody changes the gateway's routes"},
		{Key: "net/ipv6/conf/*/accept_redirects", Value: "0", Why: "as for IPv4"},
		{Key: "net/ipv4/conf/*/accept_source_route", Value: "0", Why: "the sender does not choose the path"},
		{Key: "net/ipv6/conf/*/accept_source_route", Value: "0", Why: "as for IPv4"},
		{Key: "net/ipv6/conf/*/accept_ra", Value: "2", If: "1", Why: "forwarding would turn router advertisements off, and with them the default route"},
		{Key: "net/ipv6/conf/all/forwarding", Value: "1", Why: "last, behind the rules"},
		{Key: "net/ipv4/ip_forward", Value: "1", Why: "last, behind the rules"},
	}
}
