package wire

import "encoding/binary"

const (
	// MaxAnswer is how much of a server's stream must be kept for [ReadAnswer] to come to
	// its verdict.
	MaxAnswer = 16 << 10

	// maxRetry bounds a HelloRetryRequest. It has about 100 bytes, and a cookie at most.
	maxRetry = 8 << 10
)

// Answer is what a server says to a ClientHello.
type Answer uint8

// The answers. Only ServerHello makes a decision about the hello final.
const (
	AnswerMore  Answer = iota // not to be told yet
	ServerHello               // it takes the hello as it is
	RetryHello                // a HelloRetryRequest: another ClientHello will follow, and counts
	AnswerAlert               // it refuses
	AnswerOther               // it does not speak TLS, or not as an honest server would
)

// String is a kebab-case word.
func (a Answer) String() string {
	switch a {
	case AnswerMore:
		return "more"
	case ServerHello:
		return "server-hello"
	case RetryHello:
		return "hello-retry-request"
	case AnswerAlert:
		return "alert"
	}
	return "not-tls"
}

// retryRandom is the Random that makes a ServerHello a HelloRetryRequest: the SHA-256 of that
// word (RFC 8446, section 4.1.3).
const retryRandom = "\xcf\x21\xad\x74\xe5\x9a\x61\x11\xbe\x1d\x8c\x02\x1e\x65\xb8\x91" +
	"\xc2\xa2\x11\x16\x7a\xbb\x8c\x5e\x07\x9e\x09\xe2\xc8\xa8\x33\x9c"

// answerHead is how much of a ServerHello tells a retry from the real one: message header,
// version, random (RFC 8446, section 4.1.3).
const answerHead = messageHeader + 2 + 32

// ReadAnswer tells what stream, all the bytes a server has sent so far, begins with. n is
// how many bytes a HelloRetryRequest took, so that the next answer is read from stream[n:];
// it is 0 for every other answer. The warning of old servers that they do not know the name
// is read past, for they go on; so is the ChangeCipherSpec that follows a HelloRetryRequest.
//
// A ServerHello is told by its first 38 bytes, in however many records; what follows it in
// its record does not matter. A HelloRetryRequest must be whole.
func ReadAnswer(stream []byte) (a Answer, n int) {
	start, err := skipChangeCipherSpec(stream)
	for range MaxRecords {
		if err != nil {
			return noAnswer(err), 0
		}
		if start == len(stream) || stream[start] != typeAlert {
			a, n := readServerHello(stream[start:])
			if n > 0 {
				n += start
			}
			return a, n
		}
		var r record
		r, err = readRecord(stream[start:])
		switch {
		case err != nil:
		case r.size != 2:
			return AnswerOther, 0
		case !r.whole():
			return AnswerMore, 0
		case !nameWarning(r):
			return AnswerAlert, 0
		}
		start += recordHeader + r.size
	}
	return AnswerOther, 0
}

// noAnswer is what an error of the record layer means.
func noAnswer(err error) Answer {
	if err == ErrMore {
		return AnswerMore
	}
	return AnswerOther
}

// nameWarning reports whether r is the alert unrecognized_name with the level of a warning
// (RFC 6066, section 3), the only one that a server sends and then goes on.
func nameWarning(r record) bool {
	const warning, unrecognizedName = 1, 112
	return r.content[0] == warning && r.content[1] == unrecognizedName
}

// readServerHello gathers the first bytes of the first message from its records.
func readServerHello(stream []byte) (Answer, int) {
	var head [answerHead]byte
	have, at := 0, 0
	for n := 0; have < len(head); n++ {
		if n == MaxRecords {
			return AnswerOther, 0
		}
		r, err := readRecord(stream[at:])
		if err != nil {
			return noAnswer(err), 0
		}
		have += copy(head[have:], r.content)
		if r.kind != typeHandshake || have > 0 && head[0] != typeServerHello {
			return AnswerOther, 0
		}
		if !r.whole() && have < len(head) {
			return AnswerMore, 0
		}
		at += recordHeader + r.size
	}
	if binary.BigEndian.Uint32(head[:])&0xffffff < answerHead-messageHeader {
		return AnswerOther, 0 // the random would belong to another message
	}
	if string(head[messageHeader+2:]) != retryRandom {
		return ServerHello, 0
	}
	m, err := readMessage(stream, typeServerHello)
	switch {
	case m.size > maxRetry:
		return AnswerOther, 0
	case err != nil:
		return noAnswer(err), 0
	}
	return RetryHello, m.end
}
