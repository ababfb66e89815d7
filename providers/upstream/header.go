package upstream

import (
	"compress/gzip"
	"fmt"
	"io"
	"strings"
)

// Header holds the fields of an answer's head, in order.
type Header []Field

// Field is one line of a head.
type Field struct{ Name, Value string }

// Get returns the first value of a field, "" if there is none. The case of names does
// not matter.
func (h Header) Get(name string) string {
	for i := range h {
		if len(h[i].Name) == len(name) && strings.EqualFold(h[i].Name, name) {
			return h[i].Value
		}
	}
	return ""
}

// Values returns all values of a field.
func (h Header) Values(name string) (values []string) {
	for i := range h {
		if strings.EqualFold(h[i].Name, name) {
			values = append(values, h[i].Value)
		}
	}
	return values
}

// IsType reports whether the body is declared as the media type want, such as
// "application/json", whatever its parameters.
func (a *Answer) IsType(want string) bool {
	got := a.Header.Get("Content-Type")
	if len(got) < len(want) || !strings.EqualFold(got[:len(want)], want) {
		return false
	}
	return len(got) == len(want) || strings.IndexByte("; \t,", got[len(want)]) >= 0
}

// decompress undoes a compression that was not asked for.
func (a *Answer) decompress() (err error) {
	switch e := strings.ToLower(strings.Join(a.Header.Values("Content-Encoding"), ", ")); e {
	case "", "identity":
		return nil
	case "gzip", "x-gzip":
		a.Body = &lazyGzip{src: a.Body}
		return nil
	default:
		return fmt.Errorf("unknown content encoding %.40q", e)
	}
}

// lazyGzip reads nothing before it is read: the head of an answer is a sign of life of
// its own. An empty body is one without content.
type lazyGzip struct {
	src io.Reader
	r   *gzip.Reader
}

func (z *lazyGzip) Read(p []byte) (int, error) {
	if z.r == nil {
		r, err := gzip.NewReader(z.src)
		if err == io.EOF {
			return 0, err
		}
		if err != nil {
			return 0, fmt.Errorf("the body is no gzip: %w", err)
		}
		z.r = r
	}
	return z.r.Read(p)
}
