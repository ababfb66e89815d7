package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"sluice/providers/providertest/wall"
)

// TestAfterDone proves that what comes behind the end is ignored, and that nothing of it gets
// into the next answer: the rest of a body is read to its end before its connection is used
// again, and the HTTP around it is sound.
func TestAfterDone(t *testing.T) {
	t.Parallel()
	base, _ := wall.Start(t)
	g := boot(t, overWall(base, ""))
	for _, more := range []string{"chunk", "junk", "done"} {
		for i := range 2 {
			a := g.chat(t, wallModel(fmt.Sprint(more, i), "tokens=8,after_done="+more), "")
			a.complete(t, 8)
		}
	}
}

// TestDrip lets an upstream send byte after byte: the answer is slow and whole, or ends with
// the total time and not before.
func TestDrip(t *testing.T) {
	t.Parallel()
	base, w := wall.Start(t)
	patient := boot(t, overWall(base, ""))
	a := patient.chat(t, wallModel("slow", "tokens=4,drip=100us"), "")
	a.complete(t, 4)
	g := boot(t, overWall(base, "[timeouts]\ntotal = \"3s\"\n"))
	slow := g.chat(t, wallModel("endless", "tokens=1000,drip=1ms"), "")
	if slow.done || slow.finish[0] != "" || slow.status == http.StatusOK && len(slow.errors) != 1 {
		t.Errorf("status %d, done %t, errors %+v", slow.status, slow.done, slow.errors)
	}
	awaitCall(t, w, "endless", func(q wall.Request) bool { return q.End == wall.ClientGone })
}

// secretKey is a credential of the gateway's that no stranger may see.
const secretKey = "sk-upstream-secret"

// TestUpstreamTLS gives the credential to nobody whose certificate is not good, and asks
// another target, or says what is wrong.
func TestUpstreamTLS(t *testing.T) {
	t.Parallel()
	now := time.Now()
	good := certify(t, "127.0.0.1", now.Add(time.Hour))
	roots := filepath.Join(t.TempDir(), "roots.pem")
	if err := os.WriteFile(roots, good.ca, 0o600); err != nil {
		t.Fatal(err)
	}
	base, _ := wall.Start(t)
	var asked atomic.Int64
	serve := func(p certified) string {
		s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			asked.Add(1)
			http.Error(w, "stranger", http.StatusInternalServerError)
		}))
		s.TLS = &tls.Config{Certificates: []tls.Certificate{p.pair}}
		s.Config.ErrorLog = log.New(io.Discard, "", 0)
		s.StartTLS()
		t.Cleanup(s.Close)
		return s.URL + "/v1"
	}
	mute, heard := muteListener(t)
	for name, url := range map[string]string{
		"expired":          serve(good.leaf(t, "127.0.0.1", now.Add(-time.Hour))),
		"of another host":  serve(good.leaf(t, "example.org", now.Add(time.Hour))),
		"of nobody known":  serve(certify(t, "127.0.0.1", now.Add(time.Hour))),
		"silent at hello":  "https://" + mute + "/v1",
		"no TLS behind it": "https://" + strings.TrimPrefix(base, "http://"),
	} {
		t.Run(name, func(t *testing.T) {
			text := fmt.Sprintf(`
[timeouts]
tls = "2s"

[[upstreams]]
name = "first"
base_url = %q
api_key = %q
models = ["alone"]
list_models = false

[[upstreams]]
name = "second"
base_url = %q
models = ["unused"]
list_models = false

[[models]]
name = "pool"
targets = [{ upstream = "first", model = "m" }, { upstream = "second", model = %q, priority = 1 }]
`, url, secretKey, base, wallModel("tls", "tokens=8"))
			g := bootProcess(t, text, "SSL_CERT_FILE="+roots, "SSL_CERT_DIR="+t.TempDir())
			a := g.chat(t, "pool", "")
			a.complete(t, 8)
			alone := g.chat(t, "alone", "")
			if alone.status != http.StatusBadGateway && alone.status != http.StatusServiceUnavailable && alone.status != http.StatusGatewayTimeout {
				t.Errorf("alone: %d %s", alone.status, alone.body)
			}
			if e := readError(t, alone.body); strings.Contains(e.Message, secretKey) {
				t.Errorf("the credential is told: %+v", e)
			}
		})
	}
	if n := asked.Load(); n != 0 {
		t.Errorf("%d requests reached a server whose certificate is not good", n)
	}
	if strings.Contains(heard(), secretKey) {
		t.Error("the credential was sent in the clear")
	}
}

// TestUpstreamNameGone asks another target when a name cannot be resolved, and says so when
// there is none.
func TestUpstreamNameGone(t *testing.T) {
	t.Parallel()
	base, _ := wall.Start(t)
	g := boot(t, overTwo("http://gone.invalid/v1", base, "pool", "", "tokens=8", ""))
	a := g.chat(t, "pool", "")
	a.complete(t, 8)
	alone := boot(t, overWall("http://gone.invalid/v1", ""))
	refusal := alone.chat(t, "m", "")
	if e := readError(t, refusal.body); refusal.status < 502 || refusal.status > 504 || e.Code == "" {
		t.Errorf("%d %+v", refusal.status, e)
	}
}

// certified is a certificate with the authority that issued it.
type certified struct {
	pair   tls.Certificate
	ca     []byte // PEM
	root   *x509.Certificate
	signer *ecdsa.PrivateKey
}

// certify makes an authority, and a certificate of it.
func certify(t testing.TB, host string, until time.Time) certified {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	root := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test authority"}, NotBefore: time.Now().Add(-48 * time.Hour),
		NotAfter: time.Now().Add(48 * time.Hour), IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	der, err := x509.CreateCertificate(rand.Reader, root, root, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	p := certified{ca: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), root: root, signer: key}
	return p.leaf(t, host, until)
}

// leaf is another certificate of the same authority.
func (p certified) leaf(t testing.TB, host string, until time.Time) certified {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	leaf := &x509.Certificate{SerialNumber: big.NewInt(time.Now().UnixNano()), NotBefore: time.Now().Add(-24 * time.Hour), NotAfter: until,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}
	if ip := net.ParseIP(host); ip != nil {
		leaf.IPAddresses = []net.IP{ip}
	} else {
		leaf.DNSNames = []string{host}
	}
	der, err := x509.CreateCertificate(rand.Reader, leaf, p.root, &key.PublicKey, p.signer)
	if err != nil {
		t.Fatal(err)
	}
	p.pair = tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
	return p
}

// muteListener accepts, reads and never answers; heard is what it was sent.
func muteListener(t testing.TB) (addr string, heard func() string) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	var all strings.Builder
	var conns sync.WaitGroup
	conns.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			conns.Go(func() {
				defer c.Close()
				b := make([]byte, 4096)
				for {
					n, err := c.Read(b)
					mu.Lock()
					all.Write(b[:n])
					mu.Unlock()
					if err != nil {
						return
					}
				}
			})
		}
	})
	t.Cleanup(func() {
		_ = ln.Close()
		conns.Wait()
	})
	return ln.Addr().String(), func() string {
		mu.Lock()
		defer mu.Unlock()
		return all.String()
	}
}
