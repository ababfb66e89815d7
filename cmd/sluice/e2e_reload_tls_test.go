package main

import (
	"bytes"
	"crypto/tls"
	"fmt"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// TestReloadCertificate serves a renewed certificate without a restart, and HTTP/2 still.
// TLS is not turned off by a reload.
func TestReloadCertificate(t *testing.T) {
	t.Parallel()
	pair := filepath.Join(t.TempDir(), "pair")
	writePair(t, pair)
	base, _ := gated(t)
	text := overWall(base, "")
	secure := fmt.Sprintf("[server]\ntls_cert = %q\ntls_key = %q\n", pair+".crt", pair+".key") + text
	r := bootReloadable(t, secure, false)
	leaf := func() []byte {
		t.Helper()
		d := tls.Dialer{Config: &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"h2", "http/1.1"}}, NetDialer: &net.Dialer{Timeout: patience}}
		conn, err := d.DialContext(t.Context(), "tcp", strings.TrimSuffix(strings.TrimPrefix(r.URL, "https://"), "/v1"))
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		state := conn.(*tls.Conn).ConnectionState()
		if state.NegotiatedProtocol != "h2" {
			t.Errorf("the protocol is %q", state.NegotiatedProtocol)
		}
		return state.PeerCertificates[0].Raw
	}
	first := leaf()
	writePair(t, pair)
	r.reload(t)
	second := leaf()
	if bytes.Equal(first, second) {
		t.Error("the old certificate is served")
	}
	if done := r.to(t, text); !slices.Contains(done.Restart, "server.tls_cert") || !bytes.Equal(leaf(), second) {
		t.Errorf("without TLS in the file: %+v", done)
	}
}
