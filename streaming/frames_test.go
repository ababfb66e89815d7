package streaming

import (
	"bytes"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/tmaxmax/go-sse"
)

// readFrames returns name|data of every event.
func readFrames(t testing.TB, src io.Reader, limit int) ([]string, error) {
	t.Helper()
	f := NewFrames(src, limit)
	defer f.Close()
	var out []string
	for {
		frames, err := f.Next()
		for _, fr := range frames {
			out = append(out, string(fr.Name)+"|"+string(fr.Data))
		}
		if err != nil {
			if errors.Is(err, io.EOF) {
				err = nil
			}
			return out, err
		}
	}
}

// The cases are the format-* tests of the web platform's eventsource suite and the
// framings that model servers were seen to use.
func TestFrames(t *testing.T) {
	for name, c := range map[string]struct {
		in   string
		want []string
	}{
		"one":                {"data: a\n\n", []string{"|a"}},
		"no space":           {"data:a\n\n", []string{"|a"}},
		"one space only":     {"data:  a\n\n", []string{"| a"}},
		"crlf":               {"data: a\r\n\r\ndata: b\r\n\r\n", []string{"|a", "|b"}},
		"cr":                 {"data: a\r\rdata: b\r\r", []string{"|a", "|b"}},
		"mixed line ends":    {"data: a\r\ndata: b\n\rdata: c\r\n\r\n", []string{"|a\nb", "|c"}},
		"comments":           {":\n\n: ping\ndata: a\n:x\n\n", []string{"|a"}},
		"event name":         {"event: e\ndata: a\n\ndata: b\n\n", []string{"e|a", "|b"}},
		"name without data":  {"event: ping\n\ndata: a\n\n", []string{"|a"}},
		"several lines":      {"data: a\ndata\ndata: c\n\n", []string{"|a\n\nc"}},
		"empty data":         {"data:\n\n", []string{"|"}},
		"unknown fields":     {"id: 1\nretry: 5\nfoo: x\nfoo\ndata: a\n\n", []string{"|a"}},
		"field is a prefix":  {"datax: a\ndat: b\n\n", nil},
		"bom":                {"\xef\xbb\xbfdata: a\n\n", []string{"|a"}},
		"second bom stays":   {"\xef\xbb\xbf\xef\xbb\xbfdata: a\n\n", nil},
		"no final blank":     {"data: a\n\ndata: b\n", []string{"|a"}},
		"nothing":            {"", nil},
		"utf-8":              {"data: ok…😀\n\n", []string{"|ok…😀"}},
		"nul":                {"data: \x00\n\n", []string{"|\x00"}},
		"done":               {"data: {}\n\ndata: [DONE]\n\n", []string{"|{}", "|[DONE]"}},
		"blank lines around": {"\n\n\ndata: a\n\n\n\n", []string{"|a"}},
	} {
		t.Run(name, func(t *testing.T) {
			for how, src := range map[string]io.Reader{
				"whole": strings.NewReader(c.in), "bytes": iotest.OneByteReader(strings.NewReader(c.in)),
				"halves": iotest.HalfReader(strings.NewReader(c.in)), "data with error": iotest.DataErrReader(strings.NewReader(c.in)),
			} {
				got, err := readFrames(t, src, 1<<20)
				if err != nil || strings.Join(got, "¶") != strings.Join(c.want, "¶") {
					t.Errorf("%s: got %q, %v; want %q", how, got, err, c.want)
				}
			}
		})
	}
}

func TestUnfinished(t *testing.T) {
	for in, want := range map[string]bool{
		"": false, "data: a\n\n": false, "data: a\r\n\r\n": false, "data: a\r\r": false, "data: a\n\n: ping\n": false, "data: a\n\n: pi": false,
		"data: a\n\nevent: x\n": false, "data: a": true, "data: a\n": true, "data: a\r": true, "data: a\n\nda": true, "data: a\n\nevent: x\ndata": true,
	} {
		for how, src := range map[string]io.Reader{"whole": strings.NewReader(in), "bytes": iotest.OneByteReader(strings.NewReader(in))} {
			f := NewFrames(src, 1<<10)
			for _, err := f.Next(); err == nil; _, err = f.Next() {
			}
			if got := f.Unfinished(); got != want {
				t.Errorf("%q, %s: %t", in, how, got)
			}
			f.Close()
		}
	}
}

func TestFrameOutAtOnce(t *testing.T) {
	r, w := io.Pipe()
	f := NewFrames(r, 1<<20)
	defer f.Close()
	go func() { _, _ = w.Write([]byte("data: a\r\n\r")) }()
	frames, err := f.Next()
	if err != nil || len(frames) != 1 || string(frames[0].Data) != "a" {
		t.Fatalf("an event waits for a line feed that may never come: %q %v", frames, err)
	}
}

func TestLongFrames(t *testing.T) {
	for _, size := range []int{idleBuffer - 8, idleBuffer, busyBuffer, 64 << 10, 64<<10 + 1, 1 << 20, 8 << 20} {
		long := strings.Repeat("x", size)
		got, err := readFrames(t, strings.NewReader("data: a\n\ndata: "+long+"\n\ndata: b\n\n"), 16<<20)
		if err != nil || len(got) != 3 || got[1] != "|"+long || got[2] != "|b" {
			t.Errorf("size %d: %d frames, %v", size, len(got), err)
		}
	}
}

func TestFrameTooLarge(t *testing.T) {
	endless := io.MultiReader(strings.NewReader("data: "), iotest.OneByteReader(strings.NewReader("")), zeros{})
	_, err := readFrames(t, endless, 1<<20)
	if big := new(FrameTooLargeError); !errors.As(err, &big) || big.Limit != 1<<20 {
		t.Fatalf("got %v", err)
	}
}

// An event that is over the limit but comes to its end within one read is refused too.
func TestFrameTooLargeAtOnce(t *testing.T) {
	for size, ok := range map[int]bool{1 << 10: true, 1<<10 + 1: false, 20 << 10: false, 80 << 10: false} {
		got, err := readFrames(t, strings.NewReader("data: a\n\ndata: "+strings.Repeat("x", size)+"\n\ndata: b\n\n"), 1<<10)
		if big := new(FrameTooLargeError); errors.As(err, &big) == ok || ok != (len(got) == 3) {
			t.Errorf("%d bytes: %d events, %v", size, len(got), err)
		}
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = '0'
	}
	return len(p), nil
}

func TestBufferShrinks(t *testing.T) {
	r, w := io.Pipe()
	f := NewFrames(r, 16<<20)
	defer f.Close()
	go func() {
		_, _ = w.Write([]byte("data: " + strings.Repeat("x", 1<<20) + "\n\n"))
		_, _ = w.Write([]byte("data: a\n\n"))
		_, _ = w.Write([]byte("data: b\n\n"))
		_ = w.Close()
	}()
	seen := 0
	for {
		frames, err := f.Next()
		if err != nil {
			break
		}
		seen += len(frames)
	}
	if seen != 3 || len(f.buf) > idleBuffer {
		t.Errorf("%d frames; %d bytes held while idle", seen, len(f.buf))
	}
}

// FuzzFrames: any split gives the same events, and they are those of go-sse.
func FuzzFrames(f *testing.F) {
	f.Add([]byte("event: x\ndata: a\r\ndata:b\n\n:c\rdata\n\n"), uint8(3))
	f.Add([]byte("\xef\xbb\xbfdata: {}\n\ndata: [DONE]\n\n"), uint8(1))
	f.Fuzz(func(t *testing.T, in []byte, step uint8) {
		whole, err := readFrames(t, bytes.NewReader(in), 1<<20)
		if err != nil {
			t.Fatal(err)
		}
		split, err := readFrames(t, &stepReader{in, int(step%7) + 1}, 1<<20)
		if err != nil || strings.Join(whole, "¶") != strings.Join(split, "¶") {
			t.Errorf("split by %d: %q, whole: %q (%v)", step%7+1, split, whole, err)
		}
		want, ok := oracle(in)
		if ok && strings.Join(withData(whole), "¶") != strings.Join(withData(want), "¶") {
			t.Errorf("%q: got %q, go-sse says %q", in, whole, want)
		}
	})
}

// withData leaves out events with empty data: go-sse dispatches on any field.
func withData(events []string) []string {
	return slices.DeleteFunc(slices.Clone(events), func(e string) bool { return strings.HasSuffix(e, "|") })
}

// oracle reads with go-sse. It yields an unterminated last event, so the input must end in a
// blank line to be compared, and it dispatches on id and retry too.
func oracle(in []byte) ([]string, bool) {
	if !bytes.HasSuffix(in, []byte("\n\n")) || bytes.Contains(in, []byte("id")) || bytes.Contains(in, []byte("retry")) {
		return nil, false
	}
	var out []string
	for ev, err := range sse.Read(bytes.NewReader(in), &sse.ReadConfig{MaxEventSize: 1 << 20}) {
		if err != nil {
			return nil, false
		}
		out = append(out, ev.Type+"|"+ev.Data)
	}
	return out, true
}

type stepReader struct {
	b []byte
	n int
}

func (s *stepReader) Read(p []byte) (int, error) {
	if len(s.b) == 0 {
		return 0, io.EOF
	}
	n := copy(p, s.b[:min(s.n, len(s.b))])
	s.b = s.b[n:]
	return n, nil
}

func BenchmarkFrames(b *testing.B) {
	event := "data: " + strings.Repeat("x", 280) + "\n\n"
	text := strings.Repeat(event, 100)
	b.SetBytes(int64(len(event)))
	b.ReportAllocs()
	for n := 0; n < b.N; n += 100 {
		f := NewFrames(strings.NewReader(text), 1<<20)
		for {
			if _, err := f.Next(); err != nil {
				break
			}
		}
		f.Close()
	}
}
