//go:build race

package mirror

// transfers, with the race detector, which makes each ten times as slow.
const transfers = 1_000
