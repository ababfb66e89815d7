package handlers

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/labstack/echo/v4"

	"sluice/providers"
)

// blind is a catalog in which one model does not see.
type blind struct{}

func (blind) Models(context.Context) []providers.Model { return nil }
func (blind) Has(context.Context, string) bool         { return true }
func (blind) Capabilities(_ context.Context, model string) (can providers.Capabilities) {
	if model == "blind" {
		can.No = providers.Vision
	}
	return can
}

// counted is a body that knows how much of it was read.
type counted struct {
	io.Reader
	read int
}

func (c *counted) Read(p []byte) (int, error) {
	n, err := c.Reader.Read(p)
	c.read += n
	return n, err
}

// A long body is read on only for the sake of images, and not for a model that has no eyes.
func TestLongBodies(t *testing.T) {
	const body, vision = 4 << 10, 16 << 10
	s := &Server{opt: Options{Body: body, BodyVision: vision, Catalog: blind{}}}
	text := func(size int) string { return strings.Repeat("x", size) }
	const image = `{"type":"image_url","image_url":{"url":"`
	for _, c := range []struct {
		name, body string
		op         providers.Op
		known      bool // the length
		limit      int64
		most       int // bytes that may be read
	}{
		{"a text", text(body), providers.Chat, true, 0, body},
		{"a text of unknown length", text(body), providers.Chat, false, 0, body},
		{"a long text", text(vision - 5), providers.Chat, true, body, body + 1},
		{"a long text of unknown length", text(vision - 5), providers.Chat, false, body, body + 1},
		{"an image", image + text(vision-len(image)), providers.Chat, true, 0, vision},
		{"an image of unknown length", image + text(vision-len(image)), providers.Chat, false, 0, vision},
		{"an image too large", image + text(vision), providers.Chat, true, vision, 0},
		{"an image too large, of unknown length", image + text(vision), providers.Chat, false, vision, vision + 1},
		{"an image for who sees", `{"model":"seer","messages":[` + image + text(body), providers.Chat, true, 0, vision},
		{"an image for who does not see", `{"model":"blind","messages":[` + image + text(body), providers.Chat, true, body, body + 1},
		{"a model behind its messages", `{"messages":[` + image + text(body) + `"}],"model":"blind"}`, providers.Chat, true, 0, vision},
		{"no image", `{"model":"seer","messages":[` + text(body), providers.Chat, true, body, body + 1},
		{"embeddings", image + text(body), providers.Embeddings, true, body, 0},
	} {
		for name, kind := range map[string]string{"": "application/json", ", as a form": "multipart/form-data; boundary=B"} {
			if kind != "application/json" && (c.op != providers.Chat || c.limit != vision) {
				continue
			}
			src := &counted{Reader: strings.NewReader(c.body)}
			r := httptest.NewRequest(http.MethodPost, "/", src)
			r.ContentLength = -1
			if c.known {
				r.ContentLength = int64(len(c.body))
			}
			got, err := s.readRequest(echo.New().NewContext(r, httptest.NewRecorder()), c.op, kind)
			e := providers.AsError(err)
			switch {
			case c.limit == 0 && (err != nil || string(got) != c.body):
				t.Errorf("%s%s: %d bytes, %v", c.name, name, len(got), err)
			case c.limit != 0 && (e == nil || e.Kind != providers.TooLarge || !strings.Contains(e.Message, byteCount(c.limit))):
				t.Errorf("%s%s: %v, want the limit of %d", c.name, name, err, c.limit)
			}
			if src.read > max(c.most, 0) {
				t.Errorf("%s%s: %d bytes read, want at most %d", c.name, name, src.read, c.most)
			}
		}
	}
	cut := httptest.NewRequest(http.MethodPost, "/", strings.NewReader(image+text(body)))
	cut.ContentLength = vision
	if _, err := s.readRequest(echo.New().NewContext(cut, httptest.NewRecorder()), providers.Chat, "application/json"); providers.AsError(err) == nil || providers.AsError(err).Kind != providers.BadRequest {
		t.Errorf("a body that ends early: %v", err)
	}
}

func TestModelIn(t *testing.T) {
	for head, want := range map[string]string{
		`{"model":"m","messages":[`: "m", `{"a":{"model":"x"},"model":"m"`: "m", `{"model":"m`: "", `{"model":5,`: "", `{"messages":[{"model":"x"`: "", ``: "", `[`: "",
	} {
		if got := modelIn([]byte(head)); got != want {
			t.Errorf("%s: %q, want %q", head, got, want)
		}
	}
}

func TestModelEntries(t *testing.T) {
	can := providers.Capabilities{Yes: providers.Tools, No: providers.Vision}
	for raw, want := range map[string]string{
		`{"id":"x","capabilities":{"chat":true},"context":4096}`: `{"id":"m","object":"model","created":0,"owned_by":"o","capabilities":{"vision":false,"tools":true},"context":4096}`,
		``: `{"id":"m","object":"model","created":0,"owned_by":"o","capabilities":{"vision":false,"tools":true}}`,
	} {
		if got := string(appendModel(nil, &providers.Model{ID: "m", OwnedBy: "o", Raw: []byte(raw), Capabilities: can})); got != want {
			t.Errorf("got  %s\nwant %s", got, want)
		}
	}
	const own = `{"capabilities":["a"]}`
	if got := string(appendModel(nil, &providers.Model{ID: "m", Raw: []byte(own)})); !strings.HasSuffix(got, fmt.Sprint(`,`, own[1:])) {
		t.Errorf("nothing known here: %s", got)
	}
}
