package upstream

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
)

// pieces hands data on in reads of the sizes that cuts gives in turn; 0 is no bound.
type pieces struct {
	data []byte
	cuts []byte
	nth  int
}

func (p *pieces) Read(b []byte) (int, error) {
	if len(p.data) == 0 {
		return 0, io.EOF
	}
	n := min(len(b), len(p.data))
	if len(p.cuts) > 0 {
		if cut := int(p.cuts[p.nth%len(p.cuts)]); cut > 0 {
			n = min(n, cut)
		}
		p.nth++
	}
	copy(b, p.data[:n])
	p.data = p.data[n:]
	return n, nil
}

// seen is what one reader made of an answer.
type seen struct {
	status   int
	minor    byte
	header   Header
	text     []byte
	err      error // of the body; nil is its true end
	consumed int   // bytes of the input, up to the end of the body
	keep     bool  // and nothing stands behind it
}

// oursOf reads with this package; into are the sizes of the buffers that it is given.
func oursOf(data []byte, method string, cuts, into []byte) (*seen, error) {
	src := &pieces{data: data, cuts: cuts}
	h, err := readHead(src)
	if err != nil {
		return nil, err
	}
	var b body
	if err := b.begin(src, h, method); err != nil {
		return nil, err
	}
	s := &seen{status: h.status, minor: h.minor, header: h.header}
	for nth := 0; ; nth++ {
		size := 512
		if len(into) > 0 {
			size = 1 + int(into[nth%len(into)])
		}
		p := make([]byte, size)
		n, err := b.Read(p)
		s.text = append(s.text, p[:n]...)
		if err == io.EOF {
			break
		}
		if s.err = err; err != nil {
			break
		}
	}
	s.consumed = len(data) - len(src.data) - len(b.rest)
	s.keep = b.ended && b.keep && len(src.data) == 0
	b.release()
	return s, nil
}

// theirsOf reads with net/http as its Transport does.
func theirsOf(data []byte, method string) (*seen, http.Header, error) {
	src := bytes.NewReader(data)
	in := bufio.NewReaderSize(src, max(4<<10, len(data)+1)) // which bounds trailers
	var resp *http.Response
	for {
		var err error
		if resp, err = http.ReadResponse(in, &http.Request{Method: method}); err != nil {
			return nil, nil, err
		}
		if resp.StatusCode >= 200 || resp.StatusCode == 101 {
			break
		}
	}
	s := &seen{status: resp.StatusCode}
	s.text, s.err = io.ReadAll(resp.Body)
	surplus := src.Len() + in.Buffered()
	s.consumed = len(data) - surplus
	s.keep = s.err == nil && !resp.Close && surplus == 0
	return s, resp.Header, nil
}

func isMalformed(err error) bool { return errors.As(err, new(*malformedError)) }

// sameHeader leaves out what net/http takes out of a header or puts into it.
func sameHeader(t *testing.T, ours Header, theirs http.Header) {
	for _, f := range ours {
		k := http.CanonicalHeaderKey(f.Name)
		switch k {
		case "Transfer-Encoding", "Content-Length", "Connection", "Trailer", "Cache-Control":
			continue
		}
		if want := theirs[k]; !slices.Equal(ours.Values(k), want) {
			t.Errorf("%s: %q, net/http says %q", k, ours.Values(k), want)
		}
	}
	for k := range theirs {
		if k != "Cache-Control" && ours.Values(k) == nil {
			t.Errorf("%s is only in net/http's header", k)
		}
	}
}

// compare holds one answer against net/http. What is let pass must be let pass by
// net/http too, with the same meaning; more may be refused.
func compare(t *testing.T, data []byte, method string, cuts, into []byte) {
	ours, err := oursOf(data, method, cuts, into)
	if err != nil {
		if _, _, e := theirsOf(data, method); e == nil && !isMalformed(err) {
			t.Errorf("%v, but net/http finds an answer", err)
		}
		return
	}
	if ours.header.Get("Transfer-Encoding") != "" && ours.minor == '0' {
		return // net/http takes the chunks of an HTTP/1.0 answer for its content
	}
	theirs, header, err := theirsOf(data, method)
	if err != nil {
		if ours.header.Get("Trailer") == "" { // its content means nothing here
			t.Fatalf("net/http refuses it: %v", err)
		}
		return
	}
	if ours.status != theirs.status {
		t.Errorf("status %d, net/http says %d", ours.status, theirs.status)
	}
	sameHeader(t, ours.header, header)
	compareBodies(t, ours, theirs)
}

func compareBodies(t *testing.T, ours, theirs *seen) {
	common := min(len(ours.text), len(theirs.text))
	whole := ours.err == nil
	switch {
	case whole != (theirs.err == nil) && !isMalformed(ours.err):
		t.Errorf("the body ends with %v, net/http says %v", ours.err, theirs.err)
	case !bytes.Equal(ours.text[:common], theirs.text[:common]):
		t.Errorf("body %q, net/http says %q", ours.text, theirs.text)
	case whole && len(ours.text) != len(theirs.text):
		t.Errorf("%d bytes of a body, net/http says %d", len(ours.text), len(theirs.text))
	case ours.keep && (!theirs.keep || ours.consumed != theirs.consumed):
		t.Errorf("kept behind %d bytes, net/http: %t behind %d", ours.consumed, theirs.keep, theirs.consumed)
	}
	both := ours.header.Get("Content-Length") != "" && ours.header.Get("Transfer-Encoding") != ""
	if theirs.keep && !ours.keep && whole && !both && ours.minor == '1' {
		t.Error("net/http keeps the connection")
	}
	if ours.err != nil && !isMalformed(ours.err) && !errors.Is(ours.err, io.ErrUnexpectedEOF) {
		t.Errorf("%v is no kind of end", ours.err)
	}
}

const okHead = "HTTP/1.1 200 OK\r\n"

// answers are the seeds of the fuzzers and of TestAnswersAsNetHTTP.
var answers = []string{
	okHead + "Content-Length: 5\r\n\r\nhello",
	okHead + "Content-Length: 5\r\n\r\nhel",
	okHead + "Content-Length: 5\r\n\r\nhello, surplus",
	okHead + "Content-Length: 5\r\nContent-Length: 5\r\n\r\nhello",
	okHead + "Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
	okHead + "Content-Length: 5, 5\r\n\r\nhello",
	okHead + "Content-Length: +5\r\n\r\nhello", okHead + "Content-Length: -5\r\n\r\nhello", okHead + "Content-Length: 0x5\r\n\r\nhello",
	okHead + "Content-Length: 9223372036854775808\r\n\r\nhello", okHead + "Content-Length: 9223372036854775807\r\n\r\nhello",
	okHead + "Content-Length: \r\n\r\nhello", okHead + "Content-Length: 5 5\r\n\r\nhello", okHead + "Content-Length: 0\r\n\r\n",
	okHead + "\r\nuntil the end", okHead + "Connection: keep-alive\r\n\r\nuntil the end",
	okHead + "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
	okHead + "Transfer-Encoding: chunked\r\n\r\n5;a=\"b\"\r\nhello\r\nA  \r\n0123456789\r\n000\r\nX: y\r\nZ:\r\n\r\n",
	okHead + "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\nHTTP/1.1 200 OK\r\n\r\n",
	okHead + "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nHTTP/1.1 200 OK\r\n\r\n",
	okHead + "Transfer-Encoding: chunked\r\n\r\n5\nhello\n0\n\n", okHead + "Transfer-Encoding: chunked\r\n\r\n5 x\r\nhello\r\n0\r\n\r\n",
	okHead + "Transfer-Encoding: chunked\r\n\r\n5 ;x\r\nhello\r\n0\r\n\r\n", okHead + "Transfer-Encoding: chunked\r\n\r\n\r\nhello\r\n0\r\n\r\n",
	okHead + "Transfer-Encoding: chunked\r\n\r\n\r\n\r\n", okHead + "Transfer-Encoding: chunked\r\n\r\n;a\r\n\r\n", okHead + "Transfer-Encoding: chunked\r\n\r\n \r\n\r\n",
	okHead + "Transfer-Encoding: chunked\r\n\r\n5;a\nhello\r\n01234\r\n0\r\n\r\n",
	okHead + "Transfer-Encoding: chunked\r\n\r\n-5\r\nhello\r\n0\r\n\r\n", okHead + "Transfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\nhello",
	okHead + "Transfer-Encoding: chunked\r\n\r\n7fffffffffffffff\r\nhello", okHead + "Transfer-Encoding: chunked\r\n\r\n00000000000000005\r\nhello\r\n0\r\n\r\n",
	okHead + "Transfer-Encoding: chunked\r\n\r\n5\r\nhelloXX0\r\n\r\n", okHead + "Transfer-Encoding: chunked\r\n\r\n0\r\nbad\r\n\r\n",
	okHead + "Transfer-Encoding: chunked\r\n\r\n0\r\nA: \x00\r\n\r\n", okHead + "Transfer-Encoding: chunked\r\n\r\n0\r\nA: b\n\n",
	okHead + "Transfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
	okHead + "Transfer-Encoding: Chunked\r\n\r\n0\r\n\r\n", okHead + "Transfer-Encoding: chun\u212aed\r\n\r\n0\r\n\r\n",
	okHead + "Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", okHead + "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
	okHead + "Transfer-Encoding: identity\r\n\r\nx", okHead + "Transfer-Encoding: \r\n\r\nx",
	"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 1\r\n\r\nx",
	okHead + "Connection: Close\r\nContent-Length: 1\r\n\r\nx", okHead + "Connection: a, close\r\nContent-Length: 1\r\n\r\nx",
	"HTTP/1.1 204 No Content\r\n\r\n", "HTTP/1.1 204 No Content\r\nContent-Length: 2\r\n\r\nxx", "HTTP/1.1 204 No Content\r\nContent-Length: y\r\n\r\n",
	"HTTP/1.1 304 Not Modified\r\nContent-Length: 2\r\n\r\n", "HTTP/1.1 304 Not Modified\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
	"HTTP/1.1 100 Continue\r\n\r\n" + okHead + "Content-Length: 1\r\n\r\nx", "HTTP/1.1 103 Early Hints\r\nLink: a\r\n\r\nHTTP/1.1 102 P\r\n\r\n" + okHead + "\r\nx",
	"HTTP/1.1 101 Switching Protocols\r\n\r\nx", "HTTP/1.1 099 \r\n\r\n", "HTTP/1.1 1000 \r\n\r\n", "HTTP/1.1 2\r\n\r\n", "HTTP/1.1 200\r\n\r\nx", "HTTP/1.1 200X\r\n\r\nx",
	"HTTP/1.1  200 OK\r\n\r\n", "HTTP/1.2 200 OK\r\n\r\n", "HTTP/2.0 200 OK\r\n\r\n", "http/1.1 200 OK\r\n\r\n", "\r\nHTTP/1.1 200 OK\r\n\r\n", "SSH-2.0-x\r\n", "\x15\x03\x01\x00\x02\x02",
	"HTTP/1.1 200 OK\nA: b\n\nbody\r\n\r\nmore", "HTTP/1.1 200 OK\r\nA: b\n\r\nbody", "HTTP/1.1 200 OK\r\nA: b\r\n\nbody\r\n\r\n", "HTTP/1.1 200 OK\n\r\nx",
	okHead + "A: b\r\n folded\r\n\r\n", okHead + " A: b\r\n\r\n", okHead + "A : b\r\n\r\n", okHead + ": b\r\n\r\n", okHead + "A\r\n\r\n", okHead + "A: b\x00c\r\n\r\n",
	okHead + "A: b\rc\r\n\r\n", okHead + "A: b\r\r\n\r\n", okHead + "A: b\x7f\r\n\r\n", okHead + "A:\t b \t\r\na:c\r\nPragma: no-cache\r\n\r\n", okHead + "\xc3\xa4: b\r\n\r\n",
	okHead + "A: \xff\xfe\r\nTrailer: Content-Length\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
	"", "H", "HTTP/1.1 200 OK\r\n", "HTTP/1.1 200 OK\r\nContent-Le",
}

var methods = []string{http.MethodPost, http.MethodGet, http.MethodHead}

// Each answer, in any split of reads.
func TestAnswersAsNetHTTP(t *testing.T) {
	for _, a := range answers {
		for _, method := range methods {
			for _, cut := range []byte{0, 1, 2, 3, 7} {
				for _, into := range []byte{0, 1, 4, 200} {
					t.Run("", func(t *testing.T) { compare(t, []byte(a), method, []byte{cut}, []byte{into}) })
				}
			}
			if t.Failed() {
				t.Fatalf("%s: %q", method, a)
			}
		}
	}
}

func FuzzAnswer(f *testing.F) {
	for i, a := range answers {
		f.Add([]byte(a), uint8(i), []byte{0}, []byte{200})
		f.Add([]byte(a), uint8(0), []byte{1, 3}, []byte{0, 5})
	}
	f.Fuzz(func(t *testing.T, data []byte, method uint8, cuts, into []byte) {
		if len(data) < maxHead {
			compare(t, data, methods[int(method)%len(methods)], cuts, into)
		}
	})
}

// FuzzChunks spends everything on the body.
func FuzzChunks(f *testing.F) {
	for _, a := range answers {
		if _, text, ok := strings.Cut(a, "\r\n\r\n"); ok && strings.Contains(a, "hunked") {
			f.Add([]byte(text), []byte{0}, []byte{200})
			f.Add([]byte(text), []byte{1, 3}, []byte{0, 5})
		}
	}
	f.Fuzz(func(t *testing.T, data, cuts, into []byte) {
		if len(data) < maxHead/2 {
			compare(t, append([]byte(okHead+"Transfer-Encoding: chunked\r\n\r\n"), data...), http.MethodPost, cuts, into)
		}
	})
}
