package mirror

import "sync/atomic"

// Result is what became of a request.
type Result int

// The results.
const (
	Refused Result = iota // asked wrongly, not allowed, or unknown
	Hit                   // from the store
	Miss                  // from the upstream
	Stale                 // from the store, because the upstream did not answer in time
	Failed                // the upstream had no answer, or a wrong one
)

var resultNames = []string{"refused", "hit", "miss", "stale", "failed"}

// Results lists them all.
func Results() []Result { return []Result{Refused, Hit, Miss, Stale, Failed} }

// String is the word in logs and metrics.
func (r Result) String() string { return resultNames[r] }

// Counts are what happened at one upstream since the process began.
type Counts struct {
	requests           [5]atomic.Uint64
	served, fetched    atomic.Uint64
	fetches, discarded atomic.Uint64
}

// Requests is how many requests ended so.
func (c *Counts) Requests(r Result) uint64 { return c.requests[r].Load() }

// Served and Fetched are bytes of blobs and manifests, to clients and from the upstream.
func (c *Counts) Served() uint64 { return c.served.Load() }

// Fetched is documented with Served.
func (c *Counts) Fetched() uint64 { return c.fetched.Load() }

// Fetches is how many blobs were fetched, however many clients wanted them;
// Discarded is how many of them did not match their digest.
func (c *Counts) Fetches() uint64 { return c.fetches.Load() }

// Discarded is documented with Fetches.
func (c *Counts) Discarded() uint64 { return c.discarded.Load() }
