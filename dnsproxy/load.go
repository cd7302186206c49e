package dnsproxy

import (
	"net/netip"
	"sync"
)

// Bounds of the questions that wait for an upstream or for Learn. One client
// may be the resolver of a whole cluster, so its share is large; each costs a
// goroutine and up to two sockets.
const (
	maxPending       = 4096
	maxClientPending = 1024
)

// load counts what is under way, in total and for each client.
type load struct {
	most, mostClient int

	mu     sync.Mutex
	all    int
	client map[netip.Addr]int
}

// enter reports whether one more may be; if so, leave must follow.
func (l *load) enter(client netip.Addr) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.all >= l.most || l.client[client] >= l.mostClient {
		return false
	}
	if l.client == nil {
		l.client = map[netip.Addr]int{}
	}
	l.all++
	l.client[client]++
	return true
}

// now is how much is under way.
func (l *load) now() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.all
}

func (l *load) leave(client netip.Addr) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.all--
	if l.client[client]--; l.client[client] == 0 {
		delete(l.client, client)
	}
}
