package kernel

import (
	"bytes"
	"encoding/hex"
	"testing"

	"golang.org/x/sys/unix"
)

// TestQueueStatementsAreTheseBytes is for kernels on which one or the other form
// never runs: linux/netfilter/nf_tables.h and linux/netfilter/xt_NFQUEUE.h, on a
// little-endian machine.
func TestQueueStatementsAreTheseBytes(t *testing.T) {
	for _, row := range []struct {
		q    enqueue
		want string
	}{
		{enqueue{100, 2, false, true}, "2c000180" + // NFTA_LIST_ELEM, nested
			"0a0001007175657565000000" + // NFTA_EXPR_NAME "queue"
			"1c000280" + // NFTA_EXPR_DATA
			"0600010000640000" + // NFTA_QUEUE_NUM 100
			"0600020000020000" + // NFTA_QUEUE_TOTAL 2
			"0600030000000000"}, // NFTA_QUEUE_FLAGS
		{enqueue{110, 1, true, true}, "2c000180" + "0a0001007175657565000000" + "1c000280" +
			"06000100006e0000" + "0600020000010000" + "0600030000010000"}, // NFT_QUEUE_FLAG_BYPASS
		{enqueue{100, 2, false, false}, "34000180" +
			"0b00010074617267657400" + "00" + // "target"
			"24000280" +
			"0c0001004e46515545554500" + // NFTA_TARGET_NAME "NFQUEUE"
			"0800020000000003" + // NFTA_TARGET_REV
			"0c000300" + "6400020000000000"}, // xt_NFQ_info_v3 {100, 2, 0}
		{enqueue{110, 1, true, false}, "34000180" + "0b00010074617267657400" + "00" + "24000280" +
			"0c0001004e46515545554500" + "0800020000000003" + "0c000300" + "6e00010001000000"}, // NFQ_FLAG_BYPASS
	} {
		got, err := Rule{row.q}.compile()
		if err != nil || hex.EncodeToString(got) != row.want {
			t.Errorf("%+v:\n%x\n%s (%v)", row.q, got, row.want, err)
		}
	}
}

func TestVerdictsAreTheseBytes(t *testing.T) {
	q := &Queue{num: 100}
	q.Verdict(7, true, NewMark(Allowed, 5))
	q.Verdict(8, false, 0)
	want := "2800000001030100" + "0000000000000000" + "00000064" + // length, type, flags; sequence, port; family, version, queue
		"0c00020000000001" + "00000007" + // NFQA_VERDICT_HDR: NF_ACCEPT, id
		"0800030001000005" + // NFQA_MARK
		"2000000001030100" + "0000000000000000" + "00000064" +
		"0c00020000000000" + "00000008"
	if got := hex.EncodeToString(q.out); got != want {
		t.Errorf("\n%s\n%s", got, want)
	}
}

// FuzzNetlink reads what a kernel never sends, and writes again what could be read.
func FuzzNetlink(f *testing.F) {
	f.Add(message(nil, typeQueuePacket, 0, 2, 0, attr(attr(nil, nfqaPacketHeader, []byte{0, 0, 0, 7, 8, 0, 2, 0}), nfqaPayload, []byte("packet"))))
	f.Add(cutMessage(Flow{}))
	f.Fuzz(func(t *testing.T, b []byte) {
		var again []byte
		for h, body := range headers(b) {
			start := len(again)
			again = append(again, make([]byte, headerLen)...)
			copy(again[start+4:], []byte{byte(h.Type), byte(h.Type >> 8), byte(h.Flags), byte(h.Flags >> 8)})
			again = append(again, body...)
			finish(again, start)
			for len(again)%unix.NLMSG_ALIGNTO != 0 {
				again = append(again, 0)
			}
			if len(body) >= nfgenLen {
				_, _ = readFlow(body[nfgenLen:])
				_, _ = readDenial(body[nfgenLen:])
				_, _ = readElement(body[nfgenLen:])
				_ = readSet(body[nfgenLen:])
				_, _ = readChain(body[nfgenLen:])
			}
		}
		first, second := appendPackets(nil, b), appendPackets(nil, again)
		if len(first) != len(second) {
			t.Fatalf("%d packets, and %d of the same messages", len(first), len(second))
		}
		for i := range first {
			if first[i].ID != second[i].ID || !bytes.Equal(first[i].Payload, second[i].Payload) {
				t.Fatalf("packet %d differs", i)
			}
		}
	})
}
