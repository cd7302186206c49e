package gateway

import "time"

// timer is one thing that becomes due, in at most one list.
type timer struct {
	prev, next *timer
	at         time.Time
	conn       *conn
}

// leave takes t out of its list, if it is in one.
func (t *timer) leave() {
	if t.next == nil {
		return
	}
	t.prev.next, t.next.prev = t.next, t.prev
	t.prev, t.next = nil, nil
}

// deadlines is a list of timers that all take the same time, so that the order in which
// they began is the order in which they become due, and each step costs the same however
// many there are.
type deadlines struct {
	root  timer
	after time.Duration
}

func (d *deadlines) init(after time.Duration) {
	d.root.prev, d.root.next = &d.root, &d.root
	d.after = after
}

// push starts t, which is in no list.
func (d *deadlines) push(t *timer, now time.Time) {
	t.at = now.Add(d.after)
	t.prev, t.next = d.root.prev, &d.root
	t.prev.next, d.root.prev = t, t
}

// due returns the first timer whose time has come, or nil. It stays in the list.
func (d *deadlines) due(now time.Time) *timer {
	if t := d.root.next; t != &d.root && !now.Before(t.at) {
		return t
	}
	return nil
}
