//go:build linux

package main

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
)

const proxyPort = 8443

// configure writes a peer's file, with words of the text replaced: DIR by the world's directory, UPSTREAM by the name server,
// THREADS by the number of cores.
func (w *world) configure(name, text string) (string, error) {
	path := filepath.Join(w.dir, name)
	text = strings.NewReplacer("DIR", w.dir, "UPSTREAM", nameServer.Addr().String(), "THREADS", fmt.Sprint(runtime.NumCPU())).Replace(text)
	return path, os.WriteFile(path, []byte(text), 0o644)
}

// haproxy passes by SNI without ending TLS. A wildcard is looked up as an exact text behind its first label: both in
// trees, which is the fastest that it can do.
func haproxy(w *world) error {
	if _, err := writeLines(w.dir, "exact.lst", w.bench.policy.exact); err != nil {
		return err
	}
	if _, err := writeLines(w.dir, "wild.lst", w.bench.policy.wild); err != nil {
		return err
	}
	conf, err := w.configure("haproxy.cfg", `
global
  maxconn 6000
  nbthread THREADS
  tune.bufsize 32768
  log stdout format raw daemon
defaults
  mode tcp
  log global
  option tcplog
  option splice-auto
  timeout connect 5s
  timeout client 60s
  timeout server 60s
frontend tls
  bind :8443 transparent backlog 16384
  tcp-request inspect-delay 5s
  tcp-request content accept if { req.ssl_sni,lower -m str -f DIR/exact.lst }
  tcp-request content accept if { req.ssl_sni,lower,field(2,.,0) -m str -f DIR/wild.lst }
  tcp-request content reject
  default_backend out
backend out
  server origin 0.0.0.0:0
frontend web
  mode http
  option httplog
  bind :8444 transparent backlog 16384
  http-request deny unless { hdr(host),lower -m str -f DIR/exact.lst } || { hdr(host),lower,field(2,.,0) -m str -f DIR/wild.lst }
  default_backend webout
backend webout
  mode http
  server origin 0.0.0.0:0
`)
	if err != nil {
		return err
	}
	if err := w.intercept(proxyPort); err != nil {
		return err
	}
	p, err := w.start("haproxy", "-f", conf)
	if err != nil {
		return err
	}
	return w.awaitPort(p, proxyPort)
}

// nginx asks DNS for the name of the SNI, once; it has no way to the address that the client meant.
func nginx(w *world) error {
	var b strings.Builder
	for _, n := range w.bench.policy.exact {
		fmt.Fprintf(&b, "    %s %s:443;\n", n, n)
	}
	for _, n := range w.bench.policy.wild {
		fmt.Fprintf(&b, "    *.%s $ssl_preread_server_name:443;\n", n)
	}
	conf, err := w.configure("nginx.conf", `
load_module /usr/lib/nginx/modules/ngx_stream_module.so;
daemon off;
pid DIR/nginx.pid;
error_log DIR/nginx.err;
worker_processes THREADS;
worker_rlimit_nofile 19000;
events { worker_connections 8000; }
stream {
  resolver UPSTREAM valid=3600s ipv6=off;
  log_format flow '$time_iso8601 $remote_addr $ssl_preread_server_name $status $bytes_sent';
  access_log DIR/flows.log flow;
  map_hash_max_size 65536;
  map_hash_bucket_size 128;
  map $ssl_preread_server_name $origin {
    hostnames;
`+b.String()+`  }
  server {
    listen 8443 backlog=16384;
    ssl_preread on;
    proxy_pass $origin;
  }
}
`)
	if err != nil {
		return err
	}
	if err := w.redirect(proxyPort); err != nil {
		return err
	}
	p, err := w.start("nginx", "-p", w.dir, "-c", conf, "-e", filepath.Join(w.dir, "nginx.err"))
	if err != nil {
		return err
	}
	return w.awaitPort(p, proxyPort)
}

// sniproxy has one expression a name and tries them in turn; it asks DNS for each connection.
func sniproxy(w *world) error {
	var b strings.Builder
	quoted := func(n string) string { return strings.ReplaceAll(n, ".", `\.`) }
	for _, n := range w.bench.policy.hot(hotNames) { // the whole policy would be measuring its list
		fmt.Fprintf(&b, "    ^%s$ *:443\n", quoted(n))
	}
	conf, err := w.configure("sniproxy.conf", `
user root
pidfile DIR/sniproxy.pid
resolver {
  nameserver UPSTREAM
  mode ipv4_only
}
error_log {
  filename DIR/sniproxy.err
}
access_log {
  filename DIR/flows.log
}
listener 0.0.0.0:8443 {
  protocol tls
  table names
}
table names {
`+b.String()+`}
`)
	if err != nil {
		return err
	}
	if err := w.redirect(proxyPort); err != nil {
		return err
	}
	p, err := w.start("sniproxy", "-f", "-c", conf)
	if err != nil {
		return err
	}
	return w.awaitPort(p, proxyPort)
}

// squid peeks at the hello and splices what it permits.
func squid(w *world) error {
	names := append([]string{}, w.bench.policy.exact...)
	for _, n := range w.bench.policy.wild {
		names = append(names, "."+n)
	}
	if _, err := writeLines(w.dir, "names.lst", names); err != nil {
		return err
	}
	for _, args := range [][]string{
		{"openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=bench", "-days", "30", "-keyout", w.dir + "/ca.key", "-out", w.dir + "/ca.pem"},
		{"chmod", "-R", "a+rwX", w.dir},
	} {
		if err := w.run("", args[0], args[1:]...); err != nil {
			return err
		}
	}
	conf, err := w.configure("squid.conf", `
http_port 127.0.0.1:3128
https_port 8443 intercept ssl-bump tls-cert=DIR/ca.pem tls-key=DIR/ca.key generate-host-certificates=off
sslcrtd_program /bin/true
acl step1 at_step SslBump1
acl named ssl::server_name "DIR/names.lst"
ssl_bump peek step1
ssl_bump splice named
ssl_bump terminate all
http_access allow all
cache deny all
dns_nameservers UPSTREAM
host_verify_strict off
access_log stdio:DIR/flows.log
cache_log DIR/cache.log
pid_filename DIR/squid.pid
coredump_dir DIR
max_filedescriptors 16000
shutdown_lifetime 1 seconds
netdb_filename none
`)
	if err != nil {
		return err
	}
	if err := w.redirect(proxyPort); err != nil {
		return err
	}
	p, err := w.start("squid", "-N", "-f", conf)
	if err != nil {
		return err
	}
	return w.awaitPort(p, proxyPort)
}
