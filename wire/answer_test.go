package wire

import (
	"bytes"
	"testing"

	"tidegate.io/tidegate/wire/wiretest"
)

// serverHello is a ServerHello message of which only the first bytes matter.
func serverHello(random string, more int) []byte {
	n := 2 + 32 + more
	m := []byte{2, byte(n >> 16), byte(n >> 8), byte(n), 3, 3}
	m = append(m, random...)
	return append(m, make([]byte, more)...)
}

func TestReadAnswer(t *testing.T) {
	const random = "0123456789abcdef0123456789abcdef"
	hello, retry := serverHello(random, 50), serverHello(retryRandom, 50)
	warning := []byte{21, 3, 3, 0, 2, 1, 112}
	ccs := []byte{20, 3, 3, 0, 1, 1}
	for _, row := range []struct {
		what   string
		stream []byte
		want   Answer
		n      int
	}{
		{"a ServerHello", wiretest.Record(22, 0x0303, hello), ServerHello, 0},
		{"a ServerHello of which 38 bytes are there", wiretest.Record(22, 0x0303, hello)[:5+38], ServerHello, 0},
		{"one byte less", wiretest.Record(22, 0x0303, hello)[:5+37], AnswerMore, 0},
		{"a ServerHello with a certificate in the same record", wiretest.Record(22, 0x0303, append(bytes.Clone(hello), 11, 0, 0, 0)), ServerHello, 0},
		{"a ServerHello in pieces", wiretest.Records(hello, 3, 5, 100), ServerHello, 0},
		{"a HelloRetryRequest", wiretest.Record(22, 0x0303, retry), RetryHello, 5 + len(retry)},
		{"a HelloRetryRequest in pieces", wiretest.Records(retry, 3, 5, 100), RetryHello, 15 + len(retry)},
		{"a HelloRetryRequest and the ChangeCipherSpec after it", append(wiretest.Record(22, 0x0303, retry), ccs...), RetryHello, 5 + len(retry)},
		{"all of a HelloRetryRequest but a byte", wiretest.Record(22, 0x0303, retry)[:5+len(retry)-1], AnswerMore, 0},
		{"a HelloRetryRequest with a second message behind it", wiretest.Record(22, 0x0303, append(bytes.Clone(retry), 0)), AnswerOther, 0},
		{"a HelloRetryRequest of 9 KB", wiretest.Record(22, 0x0303, serverHello(retryRandom, 9000)), AnswerOther, 0},
		{"ChangeCipherSpec, then a ServerHello", append(bytes.Clone(ccs), wiretest.Record(22, 0x0303, hello)...), ServerHello, 0},
		{"ChangeCipherSpec, then a second HelloRetryRequest", append(bytes.Clone(ccs), wiretest.Record(22, 0x0303, retry)...), RetryHello, 11 + len(retry)},
		{"a warning about the name, then a ServerHello", append(bytes.Clone(warning), wiretest.Record(22, 0x0303, hello)...), ServerHello, 0},
		{"the warning alone", warning, AnswerMore, 0},
		{"half an alert", warning[:6], AnswerMore, 0},
		{"warnings without end", bytes.Repeat(warning, 20), AnswerOther, 0},
		{"a fatal alert", []byte{21, 3, 3, 0, 2, 2, 40}, AnswerAlert, 0},
		{"close_notify, which has the level of a warning", []byte{21, 3, 3, 0, 2, 1, 0}, AnswerAlert, 0},
		{"an alert of three bytes", []byte{21, 3, 3, 0, 3}, AnswerOther, 0},
		{"nothing", nil, AnswerMore, 0},
		{"a banner of SSH", []byte("SSH-2.0"), AnswerOther, 0},
		{"an HTTP answer", []byte("H"), AnswerOther, 0},
		{"an empty record", []byte{22, 3, 3, 0, 0}, AnswerOther, 0},
		{"another message first", []byte{22, 3, 3, 0, 10, 11}, AnswerOther, 0},
		{"a ServerHello too short for its random", wiretest.Record(22, 0x0303, append([]byte{2, 0, 0, 2, 3, 3}, retryRandom...)), AnswerOther, 0},
		{"records of 1 byte without end", wiretest.Records(hello, 1), AnswerOther, 0},
	} {
		a, n := ReadAnswer(row.stream)
		if a != row.want || n != row.n {
			t.Errorf("%s: %v, %d; want %v, %d", row.what, a, n, row.want, row.n)
		}
		checkAnswerSegments(t, row.stream)
	}
}

func TestReadAnswerRecorded(t *testing.T) {
	for file, want := range map[string]Answer{
		"openssl-3.0-tls13":        ServerHello,
		"openssl-3.0-tls12":        ServerHello,
		"openssl-3.0-retry":        RetryHello,
		"openssl-3.0-alert":        AnswerAlert,
		"openssl-3.0-name-warning": ServerHello,
		"openssl-3.0-split":        ServerHello,
	} {
		stream := recorded(t, "answer/"+file)
		if a, _ := ReadAnswer(stream); a != want {
			t.Errorf("%s: %v; want %v", file, a, want)
		}
		checkAnswerSegments(t, stream)
	}
}

// checkAnswerSegments holds the answer on each prefix against the answer on the whole.
func checkAnswerSegments(t *testing.T, stream []byte) {
	t.Helper()
	whole, wholeN := ReadAnswer(stream)
	for i := range stream {
		a, n := ReadAnswer(stream[:i])
		if a == AnswerMore {
			continue
		}
		if a != whole || n != wholeN {
			t.Fatalf("after %d of %d bytes: %v, %d; on the whole: %v, %d", i, len(stream), a, n, whole, wholeN)
		}
		return
	}
}
