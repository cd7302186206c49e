package httpproxy

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"tidegate.io/tidegate/egress"
	"tidegate.io/tidegate/wire"
)

// refusal is the body of what a client is told. Fields are only ever added.
type refusal struct {
	Message     string        `json:"message"`
	Reason      egress.Reason `json:"reason"`
	Advice      string        `json:"advice"`
	Name        egress.Name   `json:"name,omitzero"`
	Destination string        `json:"destination,omitempty"`
	Request     string        `json:"request"` // client and time, both as in the flow log
}

// refuse tells the client why, and ends the connection. The flow has been reported already.
func (c *client) refuse(f egress.Flow, status int, why string) {
	c.tell(f, status, why)
	c.linger()
}

// tell writes the refusal.
func (c *client) tell(f egress.Flow, status int, why string) {
	r := refusal{
		Message: "Tidegate: " + why,
		Reason:  f.Verdict.Reason,
		Advice:  f.Verdict.Reason.Advice(),
		Name:    f.Conn.Name,
		Request: c.src.String() + "@" + f.Time.UTC().Format(time.RFC3339Nano),
	}
	if f.Conn.Dst.Addr().IsValid() {
		r.Destination = f.Conn.Dst.String()
	}
	body, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return // no value of the struct makes it fail
	}
	body = append(body, '\n')
	head := fmt.Appendf(c.out[:0], "HTTP/1.1 %d %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n"+
		"Cache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\nConnection: close\r\n\r\n", status, http.StatusText(status), len(body))
	if !c.head {
		head = append(head, body...)
	}
	_, _ = c.conn.Write(head) // when the client has gone there is nobody to tell
	c.out = head
}

// linger lets the client read what was written last. Closing with unread data makes the
// kernel reset the connection, and the client lose the answer.
func (c *client) linger() {
	const most = 256 << 10 // of a body that nobody reads
	c.conn.closeWrite()
	c.conn.within(lingerTimeout)
	_, _ = io.CopyN(io.Discard, c.conn.Conn, most) // its end is all that matters
}

// refuseRequest reports and refuses a request that the proxy itself does not let pass.
func (c *client) refuseRequest(at egress.Conn, r egress.Reason, status int, why string) {
	c.refuse(c.refused(at, r), status, why)
}

// unreadable answers to a request head that could not be read.
func (c *client) unreadable(err error) {
	var fault wire.Fault
	at := c.conned(egress.HTTP)
	switch {
	case errors.As(err, &fault):
		reason, status := faultMeans(fault)
		c.refuseRequest(at, reason, status, "not an acceptable HTTP/1 request: "+string(fault))
	case isTimeout(err):
		c.refuseRequest(at, egress.NotHTTP, http.StatusRequestTimeout, "the request head did not come in time")
	}
}

// faultMeans turns the word of a reader into the policy's.
func faultMeans(f wire.Fault) (egress.Reason, int) {
	switch f {
	case wire.ErrMethod, wire.ErrHTTP:
		return egress.NotHTTP, http.StatusBadRequest
	case wire.ErrHTTP2:
		return egress.UpgradeNotAllowed, http.StatusForbidden
	case wire.ErrNoHost:
		return egress.NoServerName, http.StatusBadRequest
	case wire.ErrHostDiffer:
		return egress.HostMismatch, http.StatusBadRequest
	case wire.ErrHeadSize, wire.ErrFields:
		return egress.MalformedRequest, http.StatusRequestHeaderFieldsTooLarge
	}
	return egress.MalformedRequest, http.StatusBadRequest
}
