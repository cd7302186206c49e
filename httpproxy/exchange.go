package httpproxy

import (
	"context"
	"errors"
	"net/http"
	"slices"

	"tidegate.io/tidegate/egress"
	"tidegate.io/tidegate/wire"
)

// maxInterim is the most interim answers before the final one: a server that sends them
// without end would keep the exchange alive for nothing.
const maxInterim = 8

// exchange judges one request, sends it on and its answer back. It reports whether the
// connection can serve another.
func (c *client) exchange(ctx context.Context, req *wire.Request) (again bool) {
	c.head = req.Method == http.MethodHead
	at, err := c.subject(req)
	if err != nil {
		c.refuseRequest(at, egress.MalformedRequest, http.StatusBadRequest, err.Error())
		return false
	}
	if r, status, why := c.improper(req); r != egress.Unreasoned {
		c.refuseRequest(at, r, status, why)
		return false
	}
	f, server, reused := c.route(ctx, at, req.Authority, c.judgeRequest)
	if server == nil {
		return false
	}
	x := &exchange{client: c, req: req, server: server, sent: server.conn.written.Load(), received: server.conn.read.Load()}
	l := c.begin(ctx, f, c.epoch, c.cut)
	defer func() { c.end(l, x.server.conn.written.Load()-x.sent, x.server.conn.read.Load()-x.received) }()
	return x.run(ctx, f.Conn, reused)
}

// subject is what of req is judged. The name goes back into the request, so that what is
// sent on is what was judged, by construction.
func (c *client) subject(req *wire.Request) (egress.Conn, error) {
	at := c.conned(egress.HTTP)
	if req.Authority.Literal {
		at.Literal = true
		return at, nil
	}
	name, err := egress.ParseName(req.Authority.Host)
	if err != nil {
		return at, err
	}
	at.Name, req.Authority.Host = name, name.String()
	return at, nil
}

// improper names what is wrong with a request that is well formed. why is empty for nothing.
func (c *client) improper(req *wire.Request) (r egress.Reason, status int, why string) {
	switch {
	case req.Form == wire.Connect: // only the explicit proxy has it, and handles it elsewhere
		return egress.MethodNotAllowed, http.StatusForbidden, "CONNECT is for the explicit proxy"
	case has(req.Fields, "Upgrade"): // also when Connection lacks it: some servers do not look there
		return egress.UpgradeNotAllowed, http.StatusForbidden, "upgrading would end the judging of requests"
	case c.explicit && req.Form != wire.Absolute:
		return egress.MalformedRequest, http.StatusBadRequest, "a proxy needs the whole URL"
	case len(connection(req.Fields)) > wire.MaxFields:
		return egress.MalformedRequest, http.StatusRequestHeaderFieldsTooLarge, "too many members of Connection"
	case req.Method == http.MethodTrace && hasBody(req): // RFC 9110, section 9.3.8
		return egress.MalformedRequest, http.StatusBadRequest, "TRACE with a body"
	}
	for _, t := range req.Tokens("Expect") {
		if t != "100-continue" {
			return egress.MalformedRequest, http.StatusExpectationFailed, "unknown expectation"
		}
	}
	return egress.Unreasoned, 0, ""
}

func hasBody(r *wire.Request) bool {
	return r.Framing == wire.Chunked || r.Framing == wire.Sized && r.Length > 0
}

// exchange is one permitted request on its way.
type exchange struct {
	*client
	req            *wire.Request
	server         *origin
	last           bool         // the client's connection ends with this exchange
	closing        bool         // the server is told to close its connection after it
	started        bool         // the client has been sent a part of the answer
	complete       bool         // it has been sent all of it
	sent, received uint64       // what the origin's connection had carried before
	body           *requestBody // nil for none
}

// run sends the request and the answer, each once.
func (x *exchange) run(ctx context.Context, to egress.Conn, reused bool) (again bool) {
	x.prepare()
	res, err := x.send()
	if err != nil && reused && x.repeatable() && x.server.conn.read.Load() == x.received {
		x.dropOrigin() // it had been closed for being idle
		var again *origin
		if again, _, err = x.reach(ctx, to); err == nil {
			x.server, x.sent, x.received = again, 0, 0
			res, err = x.send()
		}
	}
	if err == nil {
		err = x.answer(res)
	}
	if whole := x.finishBody(); whole && err == nil && !x.last {
		return true
	}
	x.fail(to, err)
	x.dropOrigin()
	x.linger()
	return false
}

// prepare turns the request into the one that is sent.
func (x *exchange) prepare() {
	req := x.req
	closing := slices.Contains(connection(req.Fields), "close")
	x.last = req.Minor == 0 || closing
	x.closing = closing || hasBody(req) && !bodyExpected(req.Method)
	req.Fields = endToEnd(req.Fields)
	if req.Minor == 0 || !hasBody(req) {
		req.Fields = without(req.Fields, "Expect") // RFC 9110, section 10.1.1
	}
	if x.closing {
		req.Fields = append(req.Fields, wire.Field{Name: "Connection", Value: "close"})
	}
}

// bodyExpected reports whether all servers read a body of that method. Some take the body of
// a GET for the next request (RFC 9110, section 9.3.1), which would then never have been
// judged: after any other, the server is told to close.
func bodyExpected(method string) bool {
	return method == http.MethodPost || method == http.MethodPut || method == http.MethodPatch
}

// repeatable reports whether the request may be sent a second time after a server closed an idle
// connection without an answer (RFC 9110, section 9.2.2).
func (x *exchange) repeatable() bool {
	switch x.req.Method {
	case http.MethodGet, http.MethodHead, http.MethodOptions:
		return !hasBody(x.req)
	}
	return false
}

// send sends the request and reads the head of the answer, passing on the interim ones.
func (x *exchange) send() (*response, error) {
	x.out = x.req.AppendHead(x.out[:0])
	if _, err := x.server.conn.Write(x.out); err != nil && !hasBody(x.req) {
		return nil, err // with a body, a server may have refused it early, and closed
	}
	if hasBody(x.req) {
		x.body = x.sendBody()
	}
	for range maxInterim {
		if err := x.awaitAnswer(); err != nil {
			return nil, err
		}
		res, err := readResponse(x.server.br, x.req.Method)
		switch {
		case err != nil:
			return nil, err
		case res.status == http.StatusSwitchingProtocols:
			return nil, errors.Join(errResponse, errors.New("an upgrade that nobody asked for"))
		case !res.interim():
			return res, nil
		}
		if x.req.Minor == 1 { // HTTP/1.0 has none (RFC 9110, section 15.2)
			res.fields = endToEnd(res.fields)
			x.out = res.appendHead(x.out[:0], wire.NoBody, false)
			if _, err := x.conn.Write(x.out); err != nil {
				return nil, err
			}
		}
	}
	return nil, errors.Join(errResponse, errors.New("interim answers without end"))
}

// awaitAnswer waits for the first byte of an answer. A server is not silent while the body is still
// on its way to it.
func (x *exchange) awaitAnswer() error {
	for {
		before := x.server.conn.written.Load()
		_, err := x.server.br.Peek(1)
		if !isTimeout(err) || x.server.conn.written.Load() == before {
			return err
		}
	}
}

// answer sends the answer to the client.
func (x *exchange) answer(res *response) error {
	if x.body != nil && !x.body.over() {
		x.last = true // whoever answers early may not read the rest
	}
	res.fields = endToEnd(res.fields)
	framing := res.framing
	if framing == untilClose && x.req.Minor == 1 {
		framing = wire.Chunked // so that the client can tell its end from a broken connection
	}
	if framing == wire.Chunked && x.req.Minor == 0 {
		framing = untilClose
	}
	x.started = true
	x.out = res.appendHead(x.out[:0], framing, x.last)
	if n := x.server.br.Buffered(); res.framing == wire.Sized && int64(n) >= res.length && res.length > 0 {
		whole, _ := x.server.br.Peek(int(res.length)) // small answers travel in one piece
		x.out = append(x.out, whole...)
		_, _ = x.server.br.Discard(len(whole)) // it has just been seen
		res.framing, framing = wire.NoBody, wire.NoBody
	}
	if _, err := x.conn.Write(x.out); err != nil {
		return err
	}
	if err := x.answerBody(res, framing); err != nil {
		return err
	}
	x.complete = true
	if res.close || x.closing || x.server.br.Buffered() > 0 { // what nobody asked for may not answer the next request
		x.dropOrigin()
	}
	return nil
}

func (x *exchange) answerBody(res *response, framing wire.Framing) error {
	if res.framing == wire.NoBody || framing == wire.Sized && res.length == 0 {
		return nil
	}
	body := res.body(x.server.br)
	if framing == wire.Chunked {
		_, err := wire.CopyChunked(x.conn, body)
		return err
	}
	return copyBody(x.conn, body)
}

// fail tells the client what went wrong, where that is still possible: an answer that has
// begun is cut short, so that its beginning is not taken for the whole.
func (x *exchange) fail(to egress.Conn, err error) {
	if x.started {
		if !x.complete {
			x.conn.Close()
		}
		return
	}
	f := egress.Flow{Time: x.now(), Conn: to, Verdict: egress.Denied(egress.UpstreamUnreachable)}
	var fault wire.Fault
	switch sending := x.body.failure(); {
	case errors.As(sending, &fault):
		f.Verdict = egress.Denied(egress.MalformedRequest)
		x.Report(f)
		x.tell(f, http.StatusBadRequest, "not an acceptable body: "+string(fault))
	case sending != nil: // the client is gone, or as good as
	case errors.Is(err, errResponse):
		x.tell(f, http.StatusBadGateway, err.Error())
	case isTimeout(err):
		x.tell(f, http.StatusGatewayTimeout, "the destination did not answer in time")
	default:
		x.tell(f, http.StatusBadGateway, "the destination closed the connection without an answer")
	}
}
