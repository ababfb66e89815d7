package streaming

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
)

// readLines reads all lines and the error that ends them.
func readLines(src io.Reader, limit int) (lines []string, err error) {
	l := NewLines(src, limit)
	defer l.Close()
	for {
		got, err := l.Next()
		if err != nil {
			return lines, err
		}
		for _, line := range got {
			lines = append(lines, string(line))
		}
	}
}

func TestLines(t *testing.T) {
	long := strings.Repeat("x", 100_000)
	for name, c := range map[string]struct {
		in   string
		want []string
	}{
		"nothing":              {"", nil},
		"ends":                 {"a\nb\r\nc\n", []string{"a", "b", "c"}},
		"no end":               {"a\n{\"b\":1}", []string{"a", `{"b":1}`}},
		"no end but CR":        {"{}\r", []string{"{}"}},
		"cut":                  {"a\n{\"b\":", []string{"a"}},
		"white space":          {"\n \n\r\n a \n\n\t", []string{"a"}},
		"a byte order mark":    {"\xef\xbb\xbfa\nb\n", []string{"a", "b"}},
		"beyond every buffer":  {"a\n" + long + "\nb\n[\"" + long + "\"]", []string{"a", long, "b", `["` + long + `"]`}},
		"CR is no end of line": {"a\rb\n", []string{"a\rb"}},
	} {
		for how, src := range map[string]io.Reader{
			"whole": strings.NewReader(c.in), "byte by byte": iotest.OneByteReader(strings.NewReader(c.in)),
			"error with data": iotest.DataErrReader(strings.NewReader(c.in)),
		} {
			if got, err := readLines(src, 1<<20); !slices.Equal(got, c.want) || err != io.EOF {
				t.Errorf("%s, %s: %.80q, %v", name, how, got, err)
			}
		}
	}
}

func TestLinesLimit(t *testing.T) {
	fits := strings.Repeat("x", 5000)
	for name, in := range map[string]string{
		"ended": "a\n" + fits + "\n" + fits + "x\nb\n", "at the end": "a\n" + fits + "\n[" + strings.Repeat(" ", len(fits)) + "]",
		"endless": "a\n" + fits + "\n" + strings.Repeat("y", 20_000),
	} {
		got, err := readLines(strings.NewReader(in), len(fits))
		if large := new(FrameTooLargeError); !errors.As(err, &large) || large.Limit != len(fits) {
			t.Errorf("%s: error %v", name, err)
		}
		if !slices.Equal(got, []string{"a", fits}) {
			t.Errorf("%s: %d lines", name, len(got))
		}
	}
}

// An unfinished line before a broken connection is no line.
func TestLinesBroken(t *testing.T) {
	broken := errors.New("reset")
	got, err := readLines(io.MultiReader(strings.NewReader("a\nb"), iotest.ErrReader(broken)), 100)
	if err != broken || !slices.Equal(got, []string{"a"}) {
		t.Errorf("%q, %v", got, err)
	}
}

// However a text arrives, its lines are those that cutting it by hand gives.
func FuzzLines(f *testing.F) {
	f.Add([]byte("{\"a\":1}\n{\"b\":2}\r\n\n  \n{"), 3)
	f.Add([]byte("\xef\xbb\xbf{}\n"), 1)
	f.Fuzz(func(t *testing.T, text []byte, piece int) {
		var want []string
		all := bytes.Split(bytes.TrimPrefix(text, []byte("\xef\xbb\xbf")), []byte("\n"))
		for i, line := range all {
			if line = bytes.TrimSpace(line); len(line) > 0 && (i < len(all)-1 || json.Valid(line)) {
				want = append(want, string(line))
			}
		}
		got, err := readLines(&pieces{text, max(1, min(piece, 4096))}, 1<<20)
		if err != io.EOF || !slices.Equal(got, want) {
			t.Errorf("%q, %v; want %q", got, err, want)
		}
	})
}

// pieces is a reader that brings n bytes at a time.
type pieces struct {
	text []byte
	n    int
}

func (p *pieces) Read(b []byte) (int, error) {
	if len(p.text) == 0 {
		return 0, io.EOF
	}
	n := copy(b, p.text[:min(p.n, len(p.text))])
	p.text = p.text[n:]
	return n, nil
}

// While much comes at once the large buffer stays, and it is given back when little comes.
func TestLinesBuffer(t *testing.T) {
	r, w := io.Pipe()
	l := NewLines(r, 1<<20)
	defer l.Close()
	burst, small := strings.Repeat(`{"a":1}`+"\n", busyBuffer/8), `{"a":1}`+"\n"
	go func() {
		for range 4 {
			_, _ = io.WriteString(w, burst)
		}
		for range 3 {
			_, _ = io.WriteString(w, small)
		}
		_ = w.Close()
	}()
	var sizes []int
	lines := 0
	for got, err := l.Next(); err == nil; got, err = l.Next() {
		lines += len(got)
		sizes = append(sizes, len(l.in.buf))
	}
	if want := 4*strings.Count(burst, "\n") + 3; lines != want {
		t.Errorf("%d lines of %d", lines, want)
	}
	if len(sizes) > 8 || sizes[len(sizes)-1] != idleBuffer {
		t.Errorf("read into buffers of %v", sizes)
	}
}
