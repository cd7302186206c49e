package why

import (
	"strings"
	"testing"
)

// BenchmarkRead reads a log in which one line in ten says something.
func BenchmarkRead(b *testing.B) {
	noise := strings.Repeat("I1125 17:41:36.123456 1 reconciler.go:50] operationExecutor.VerifyControllerAttachedVolume started for volume pvc-1\n", 9)
	log := strings.Repeat(noise+texts[19].text+"\n", 100)
	b.SetBytes(int64(len(log)))
	for b.Loop() {
		if _, err := Read(strings.NewReader(log)); err != nil {
			b.Fatal(err)
		}
	}
}
