package discover

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// follow watches a source until the test ends.
func follow(t *testing.T, s Source) (lists chan []Member, errs chan error) {
	t.Helper()
	lists, errs = make(chan []Member, 100), make(chan error, 100)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.Watch(ctx, func(m []Member, err error) {
			if err != nil {
				errs <- err
			} else {
				lists <- slices.Clone(m)
			}
		})
	}()
	t.Cleanup(func() {
		cancel()
		<-done
	})
	return lists, errs
}

// await waits for a list with these addresses.
func await(t *testing.T, lists chan []Member, want ...string) []Member {
	t.Helper()
	late := time.After(30 * time.Second)
	var got []string
	for {
		select {
		case m := <-lists:
			got = nil
			for _, one := range m {
				got = append(got, one.Address)
			}
			if slices.Equal(got, want) {
				return m
			}
		case <-late:
			t.Fatalf("the list is %q, want %q", got, want)
		}
	}
}

func TestTidy(t *testing.T) {
	got, err := tidy([]Member{{Address: "b:1"}, {Address: "a:1", Weight: 3}, {Address: "b:1", Weight: 2}, {Address: "::1"}, {Address: "[::1]:80"}})
	if err != nil || len(got) != 4 || got[2].Address != "a:1" || got[3].Weight != 2 {
		t.Errorf("%+v, %v", got, err)
	}
	for _, bad := range []string{"", "a b", "a/b", "http://a", "a:0", "a:70000", "a:x", "user@a", "a?b", "a#b", strings.Repeat("a", 300)} {
		if _, err := tidy([]Member{{Address: bad}}); err == nil {
			t.Errorf("%q is taken for an address", bad)
		}
	}
	if _, err := tidy(make([]Member, maxMembers+1)); err == nil {
		t.Error("a list has no bound")
	}
}

func FuzzFile(f *testing.F) {
	f.Add("a:1\n# no\nb\n")
	f.Add(`["a:1", {"address": "b", "weight": 2}]`)
	f.Fuzz(func(t *testing.T, text string) {
		all, err := parseFile([]byte(text))
		for _, m := range all {
			if err == nil && (checkAddress(m.Address) != nil || m.Weight < 1) {
				t.Errorf("%+v", m)
			}
		}
	})
}

func TestFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "servers")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(path+".new", []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(path+".new", path); err != nil {
			t.Fatal(err)
		}
	}
	write("10.0.0.2:8000\n10.0.0.1:8000 # the first\n\n")
	lists, errs := follow(t, File{path})
	await(t, lists, "10.0.0.1:8000", "10.0.0.2:8000")
	write(`[{"address": "gpu-1:8000", "weight": 2, "priority": 1, "drained": true}, "gpu-2"]`)
	if m := await(t, lists, "gpu-1:8000", "gpu-2"); m[0] != (Member{"gpu-1:8000", 2, 1, true}) {
		t.Errorf("%+v", m)
	}
	write(`[{"adress": "gpu-1"}]`)
	if err := <-errs; !strings.Contains(err.Error(), "adress") {
		t.Error(err)
	}
	write("")
	await(t, lists)
}

// nameServer answers questions over UDP (RFC 1035).
type nameServer struct {
	mu    sync.Mutex
	a     []net.IP
	srv   []net.SRV
	code  byte // RCODE
	asked int
}

func (n *nameServer) serve(t *testing.T) string {
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

func (n *nameServer) answer(q []byte) []byte {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.asked++
	end := 12
	for q[end] != 0 {
		end += int(q[end]) + 1
	}
	kind := binary.BigEndian.Uint16(q[end+1:])
	out := slices.Clone(q[:end+5])
	out[2], out[3] = out[2]|0x80, 0x80|n.code
	copy(out[4:12], []byte{0, 1, 0, 0, 0, 0, 0, 0})
	record := func(data []byte) {
		out[7]++
		out = append(out, 0xc0, 12)
		out = binary.BigEndian.AppendUint16(out, kind)
		out = append(out, 0, 1, 0, 0, 0, 1)
		out = binary.BigEndian.AppendUint16(out, uint16(len(data)))
		out = append(out, data...)
	}
	switch kind {
	case 1:
		for _, ip := range n.a {
			record(ip.To4())
		}
	case 33:
		for _, s := range n.srv {
			data := binary.BigEndian.AppendUint16(nil, s.Priority)
			data = binary.BigEndian.AppendUint16(data, s.Weight)
			data = binary.BigEndian.AppendUint16(data, s.Port)
			for label := range strings.SplitSeq(strings.TrimSuffix(s.Target, "."), ".") {
				data = append(append(data, byte(len(label))), label...)
			}
			record(append(data, 0))
		}
	}
	return out
}

func (n *nameServer) set(code byte, a []net.IP, srv []net.SRV) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.code, n.a, n.srv = code, a, srv
}

func TestDNS(t *testing.T) {
	n := &nameServer{}
	n.set(0, []net.IP{net.IPv4(10, 0, 0, 2), net.IPv4(10, 0, 0, 1)}, nil)
	at := n.serve(t)
	lists, errs := follow(t, DNS{Name: "vllm.svc.example", Server: at, Every: 50 * time.Millisecond, Timeout: 10 * time.Second})
	await(t, lists, "10.0.0.1", "10.0.0.2")
	n.set(0, []net.IP{net.IPv4(10, 0, 0, 3)}, nil)
	await(t, lists, "10.0.0.3")
	for _, code := range []byte{2, 3, 0} { // SERVFAIL, NXDOMAIN, no records
		n.set(code, nil, nil)
		for len(errs) > 0 {
			<-errs
		}
		<-errs
	}
	n.set(0, []net.IP{net.IPv4(10, 0, 0, 4)}, nil)
	await(t, lists, "10.0.0.4")
}

func TestServices(t *testing.T) {
	n := &nameServer{}
	n.set(0, nil, []net.SRV{{Target: "a.example.", Port: 8000, Weight: 3, Priority: 1}, {Target: "b.example.", Port: 8001, Priority: 2}})
	lists, errs := follow(t, DNS{Name: "_llm._tcp.example", Services: true, Server: n.serve(t), Every: 50 * time.Millisecond, Timeout: 10 * time.Second})
	if m := await(t, lists, "a.example:8000", "b.example:8001"); m[0] != (Member{"a.example:8000", 3, 1, false}) || m[1] != (Member{"b.example:8001", 1, 2, false}) {
		t.Errorf("%+v", m)
	}
	n.set(0, nil, []net.SRV{{Target: ".", Port: 0}})
	<-errs
}

func TestLeases(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := NewLeases()
		ctx, cancel := context.WithCancel(t.Context())
		var newest atomic.Pointer[[]Member]
		list := func() []Member { return *newest.Load() }
		go l.Watch(ctx, func(m []Member, _ error) { newest.Store(&m) })
		put := func(id, address string, fresh bool) {
			t.Helper()
			if got, err := l.Put(id, Member{Address: address}, 10*time.Second); err != nil || got != fresh {
				t.Errorf("%s: fresh %t, %v", id, got, err)
			}
			synctest.Wait()
		}
		put("a", "a:1", true)
		put("b", "b:1", true)
		for range 5 { // a's heart beats
			time.Sleep(6 * time.Second)
			put("a", "a:1", false)
		}
		if want := []Member{{"a:1", 1, 0, false}, {"b:1", 1, 0, true}}; !slices.Equal(list(), want) {
			t.Errorf("%+v, want %+v", list(), want)
		}
		put("b", "b:1", true)
		if !l.End("a") || l.End("a") || l.End("nobody") {
			t.Error("a lease does not end once")
		}
		synctest.Wait()
		if want := []Member{{"a:1", 1, 0, true}, {"b:1", 1, 0, false}}; !slices.Equal(list(), want) {
			t.Errorf("%+v, want %+v", list(), want)
		}
		put("again", "a:1", true) // at the same address, under another name
		if want := []Member{{"a:1", 1, 0, false}, {"b:1", 1, 0, false}}; !slices.Equal(list(), want) {
			t.Errorf("%+v, want %+v", list(), want)
		}
		if fresh, err := l.Put("b", Member{Address: "b:1"}, time.Second); err != nil || fresh { // it will not live as long as it thought
			t.Errorf("fresh %t, %v", fresh, err)
		}
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if want := []Member{{"a:1", 1, 0, false}, {"b:1", 1, 0, true}}; !slices.Equal(list(), want) {
			t.Errorf("%+v, want %+v", list(), want)
		}
		time.Sleep(forgetAfter + 11*time.Second)
		synctest.Wait()
		if len(list()) != 0 {
			t.Errorf("%+v are not forgotten", list())
		}
		if _, err := l.Put("x", Member{Address: "http://x"}, time.Second); err == nil {
			t.Error("a URL is taken for an address")
		}
		for i := range maxMembers + 1 {
			if _, err := l.Put(fmt.Sprint(i), Member{Address: "x:1"}, time.Second); errors.Is(err, ErrFull) != (i == maxMembers) {
				t.Fatalf("%d: %v", i, err)
			}
		}
		cancel()
	})
}
