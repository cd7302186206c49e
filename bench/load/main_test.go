//go:build linux

package load

import (
	"os"
	"testing"

	"tidegate.io/tidegate/internal/netns/netnstest"
)

func TestMain(m *testing.M) { os.Exit(netnstest.Main(m)) }
