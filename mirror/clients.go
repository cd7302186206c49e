package mirror

import (
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"fmt"
	"strings"
)

// maxClients bounds the list, which is compared whole with every request.
const maxClients = 1000

// Authorization reads the first client of such a list as the header that it sends.
func Authorization(name string, text []byte) (string, error) {
	if _, err := ReadClients(name, text); err != nil {
		return "", err
	}
	for line := range strings.Lines(string(text)) {
		how, secret, _ := strings.Cut(strings.TrimSpace(line), " ")
		switch how {
		case "basic":
			return "Basic " + base64.StdEncoding.EncodeToString([]byte(secret)), nil
		case "bearer":
			return "Bearer " + secret, nil
		}
	}
	return "", fmt.Errorf("%s: no clients", name)
}

// ReadClients reads who may pull: a line each, "basic USER:PASSWORD" or "bearer
// TOKEN". The function that it returns judges an Authorization header, in a time
// that does not tell how much of a secret was right.
func ReadClients(name string, text []byte) (func(authorization string) bool, error) {
	var known [][sha256.Size]byte
	n := 0
	for line := range strings.Lines(string(text)) {
		n++
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		how, secret, _ := strings.Cut(line, " ")
		switch user, password, ok := strings.Cut(secret, ":"); {
		case how == "bearer" && len(secret) >= 16 && !strings.ContainsAny(secret, " \t"):
			known = append(known, sha256.Sum256([]byte("bearer "+secret)))
		case how == "basic" && ok && user != "" && len(password) >= 8:
			known = append(known, sha256.Sum256([]byte("basic "+base64.StdEncoding.EncodeToString([]byte(secret)))))
		default: // the line itself may be a secret
			return nil, fmt.Errorf("%s:%d: want basic USER:PASSWORD (of 8 characters or more) or bearer TOKEN (of 16 or more)", name, n)
		}
	}
	if len(known) == 0 || len(known) > maxClients {
		return nil, fmt.Errorf("%s: %d clients; want 1 to %d", name, len(known), maxClients)
	}
	return func(authorization string) bool {
		how, secret, _ := strings.Cut(authorization, " ")
		shown := sha256.Sum256([]byte(strings.ToLower(how) + " " + strings.TrimSpace(secret)))
		found := 0
		for _, k := range known {
			found |= subtle.ConstantTimeCompare(k[:], shown[:])
		}
		return found == 1
	}, nil
}
