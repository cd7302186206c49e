//go:build linux

package lab

import (
	_ "embed" // for AttackRules
	"net/netip"
	"strings"
)

// AttackRules are rules for the end of a gateway's file, that permit what the tactics pretend to want: names in
// permitted.example, whose servers serve the attacker's names as well.
//
//go:embed attack.yaml
var AttackRules string

// The names that AttackRules permits. frontDoors are served by one server each, and long enough for the attacker to have a
// name of the same length with a word of his own.
var frontDoors = []string{
	"front-door-that-go-keeps.permitted.example",
	"front-door-that-openssl-keeps.permitted.example",
	"front-door-that-nginx-keeps.permitted.example",
}

const (
	otherDoor     = "another-front-door.permitted.example"
	wildDoor      = ".wild.permitted.example" // below which everything is permitted
	manyAddresses = "many-addresses.permitted.example"
	timeDoor      = "time.permitted.example"
	webDoorGo     = "web-that-go-keeps.permitted.example"
	webDoorNginx  = "web-that-nginx-keeps.permitted.example"
	echoPort      = 9000
)

// echoAddr are the addresses of a permitted tunnel.
var echoAddr = [2]netip.Addr{netip.MustParseAddr("20.103.4.5"), netip.MustParseAddr("2603:1000:7::5")}

// Servers that stand behind the front doors.
const (
	serverGo      = "Go"
	serverOpenSSL = "OpenSSL"
	serverNginx   = "nginx"
)

// serverOf is who serves a name.
func serverOf(name string) string {
	switch {
	case strings.Contains(name, "openssl"):
		return serverOpenSSL
	case strings.Contains(name, "nginx"):
		return serverNginx
	}
	return serverGo
}

// webOf is the permitted web server for a shape.
func webOf(s shape) string {
	if serverOf(s.name) == serverNginx {
		return webDoorNginx
	}
	return webDoorGo
}
