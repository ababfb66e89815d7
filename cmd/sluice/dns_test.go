package main

import (
	"encoding/binary"
	"net"
	"slices"
	"sync"
	"testing"
)

// addressServer is a name server over UDP that gives every name the same addresses of IPv4 (RFC 1035).
type addressServer struct {
	mu        sync.Mutex
	addresses []net.IP
}

func (n *addressServer) set(addresses ...net.IP) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.addresses = addresses
}

// serve answers until the test ends.
func (n *addressServer) serve(t testing.TB) (addr string) {
	t.Helper()
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		b := make([]byte, 1500)
		for {
			size, from, err := conn.ReadFrom(b)
			if err != nil {
				return
			}
			_, _ = conn.WriteTo(n.answer(b[:size]), from)
		}
	}()
	t.Cleanup(func() {
		_ = conn.Close()
		<-done
	})
	return conn.LocalAddr().String()
}

func (n *addressServer) answer(question []byte) []byte {
	n.mu.Lock()
	defer n.mu.Unlock()
	end := 12
	for question[end] != 0 {
		end += int(question[end]) + 1
	}
	out := slices.Clone(question[:end+5])
	out[2], out[3] = out[2]|0x80, 0x80
	copy(out[4:12], []byte{0, 1, 0, 0, 0, 0, 0, 0})
	if binary.BigEndian.Uint16(question[end+1:]) == 1 { // A
		for _, ip := range n.addresses {
			out[7]++
			out = append(out, 0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 1, 0, 4)
			out = append(out, ip.To4()...)
		}
	}
	return out
}
