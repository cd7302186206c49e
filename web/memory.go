package web

import (
	"net/http"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
)

// Memory is what the process needs, in bytes, and does not only have because nobody has asked for it back.
type Memory struct {
	Heap       uint64 `json:"heap"`   // what is in use of it
	Stacks     uint64 `json:"stacks"` // of goroutines
	Goroutines int    `json:"goroutines"`
}

// collect collects garbage, gives what is free back to the machine, and tells what is left. It takes some milliseconds, in
// which the process decides more slowly.
func collect(w http.ResponseWriter, _ *http.Request) {
	runtime.GC() // what is in pools goes with the second
	debug.FreeOSMemory()
	left := []metrics.Sample{{Name: "/gc/heap/live:bytes"}, {Name: "/memory/classes/heap/stacks:bytes"}}
	metrics.Read(left)
	writeJSON(w, Memory{left[0].Value.Uint64(), left[1].Value.Uint64(), runtime.NumGoroutine()})
}
