package kernel

import (
	"os"
	"runtime"
	"testing"

	"tidegate.io/tidegate/internal/netns/netnstest"
)

// TestMain gives a queue a processor of its own, as the gateway does.
func TestMain(m *testing.M) {
	runtime.GOMAXPROCS(runtime.NumCPU() + 1)
	os.Exit(netnstest.Main(m))
}
