package httpproxy

import (
	"context"
	"net/http"

	"tidegate.io/tidegate/egress"
	"tidegate.io/tidegate/wire"
)

// connect serves CONNECT (RFC 9110, section 9.3.6), and is the end of the connection.
func (c *client) connect(ctx context.Context, req *wire.Request) {
	at, err := c.subject(req)
	at.Proto = egress.HTTPS
	if err != nil {
		c.refuseRequest(at, egress.MalformedRequest, http.StatusBadRequest, err.Error())
		return
	}
	f, server, _ := c.route(ctx, at, req.Authority, c.judgeTunnel)
	if server == nil {
		return
	}
	if _, err := c.conn.Write([]byte("HTTP/1.1 200 Connection Established\r\n\r\n")); err != nil {
		return
	}
	t := &tunnel{client: c, server: server, flow: f}
	t.run(ctx)
}

// judgeTunnel is the judge of a tunnel. What a TCP rule permits may carry anything. Another
// one is judged as if the hello in it had been read already, and will show the name that
// CONNECT gave; of the API server by address, it is only known that the hello must be read.
func (c *client) judgeTunnel(ctx context.Context, at egress.Conn) (egress.Flow, bool) {
	plain := at
	plain.Proto = egress.TCP
	f := c.decide(ctx, plain)
	switch {
	case f.Verdict.Action == egress.Allow:
		return f, true
	case !at.Literal:
		f = c.decide(ctx, at)
	case f.Verdict.Action == egress.Wait && f.Conn.API:
		return f, true
	case f.Verdict.Action == egress.Wait:
		f.Verdict = egress.Denied(egress.AddressAsName)
	}
	return f, passes(f)
}
