//go:build !race

package mirror

// transfers are how many blobs go through the faults.
const transfers = 10_000
