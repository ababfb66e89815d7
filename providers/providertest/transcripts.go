package providertest

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"sluice/providers"
	"sluice/streaming"
)

// Demands are what the transcripts of an adapter must show together.
var Demands = []string{"complete", "truncated", "in-band error", "usage", "no usage", "unicode", "length", "tools", "reasoning", "malformed", "whole"}

// transcript is what a server sends, and who asked for it.
type transcript struct {
	file, golden string
	text         []byte
	req          *providers.Request
}

// name stands in the names of tests.
func (tr *transcript) name() string {
	return strings.TrimSuffix(filepath.Base(tr.golden), ".golden")
}

// load reads all transcripts.
func (s *Suite) load(t *testing.T) []*transcript {
	t.Helper()
	files := glob(t, s.Dir+"/*/*"+s.Ext)
	if len(files) == 0 {
		t.Fatalf("no transcripts %s/*/*%s", s.Dir, s.Ext)
	}
	all := make([]*transcript, 0, len(files))
	for _, file := range files {
		stem := strings.TrimSuffix(file, s.Ext)
		tr := &transcript{file: file, golden: stem + ".golden", text: read(t, file)}
		body, err := os.ReadFile(stem + ".request.json")
		if err != nil {
			body = defaultBody(file)
		}
		tr.req = parse(t, file, body)
		all = append(all, tr)
	}
	return all
}

func read(t testing.TB, file string) []byte {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// opOf goes by the path of a file.
func opOf(file string) (op providers.Op, path string) {
	switch {
	case strings.Contains(file, "completions"):
		return providers.Completions, "/completions"
	case strings.Contains(file, "embeddings"):
		return providers.Embeddings, "/embeddings"
	default:
		return providers.Chat, "/chat/completions"
	}
}

func defaultBody(file string) []byte {
	stream := `,"stream":true`
	if strings.Contains(file, "whole") {
		stream = ""
	}
	switch op, _ := opOf(file); op {
	case providers.Completions:
		return []byte(`{"model":"m","prompt":"Hi"` + stream + `}`)
	case providers.Embeddings:
		return []byte(`{"model":"m","input":"Hi"}`)
	default:
		return []byte(`{"model":"m","messages":[{"role":"user","content":"Hi"}]` + stream + `}`)
	}
}

func parse(t testing.TB, file string, body []byte) *providers.Request {
	t.Helper()
	op, path := opOf(file)
	req, err := providers.Parse(op, path, "application/json", body, 64)
	if err != nil {
		t.Fatalf("%s: %v", file, err)
	}
	req.ID = "req_1"
	return req
}

// feed is a way to send a transcript.
type feed struct {
	text      []byte
	piecewise bool
	split     int  // a second piece begins there; 0: none
	broken    bool // the connection breaks behind the text
}

func (f *feed) reader() io.Reader {
	r := io.Reader(bytes.NewReader(f.text))
	if f.split > 0 {
		r = io.MultiReader(bytes.NewReader(f.text[:f.split]), bytes.NewReader(f.text[f.split:]))
	}
	if f.piecewise {
		r = iotest.OneByteReader(r)
	}
	if f.broken {
		r = io.MultiReader(r, iotest.ErrReader(io.ErrUnexpectedEOF))
	}
	return r
}

// play sends a transcript and listens to the adapter.
func (s *Suite) play(t testing.TB, req *providers.Request, f feed) *record {
	t.Helper()
	p := streaming.NewProgress(time.Now())
	if s.Play != nil {
		return listen(s.Play(req, p, f.reader()), p, 0)
	}
	script := s.script(req, f.text)
	script.Piecewise, script.Break = f.piecewise, f.broken
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	return listen(s.New(t, s.serve(t, script)).Stream(ctx, req, p), p, 0)
}

// script answers req with a body of the type that it has.
func (s *Suite) script(req *providers.Request, body []byte) *Script {
	sc := &Script{Status: 200, Type: "application/json", Body: body}
	if req.Stream || s.NoWhole {
		sc.Type = s.Type
	}
	return sc
}

func (s *Suite) transcripts(t *testing.T) {
	met := map[string]bool{}
	for _, tr := range s.load(t) {
		t.Run(tr.name(), func(t *testing.T) {
			got := s.play(t, tr.req, feed{text: tr.text})
			want := compareGolden(t, tr.golden, got.golden())
			for _, fault := range got.faults {
				t.Error(fault)
			}
			s.pieces(t, tr, want)
			got.meets(met, tr.req)
		})
	}
	if t.Failed() {
		return
	}
	for _, d := range Demands {
		if lacks := slices.Contains(s.Lacks, d); met[d] == lacks {
			t.Errorf("demand %q: met by a transcript %t, said to be lacking %t", d, met[d], lacks)
		}
	}
}

// pieces plays a transcript in every other way, which must make no difference.
func (s *Suite) pieces(t *testing.T, tr *transcript, want string) {
	t.Helper()
	feeds := map[string]feed{"in pieces": {text: tr.text, piecewise: true}}
	if s.Lines && !s.Messages {
		crlf := bytes.ReplaceAll(tr.text, []byte("\n"), []byte("\r\n"))
		feeds["with CRLF"] = feed{text: crlf}
		feeds["with CRLF, in pieces"] = feed{text: crlf, piecewise: true}
	}
	for how, f := range feeds {
		if got := s.play(t, tr.req, f).golden(); got != want {
			t.Errorf("%s:\n%s\nwant\n%s", how, got, want)
		}
	}
	if s.Play == nil {
		return
	}
	for _, at := range s.places(tr.text) {
		if got := s.play(t, tr.req, feed{text: tr.text, split: at}).golden(); got != want {
			t.Fatalf("split at byte %d:\n%s\nwant\n%s", at, got, want)
		}
	}
}

// meets notes which demands a record meets.
func (r *record) meets(met map[string]bool, req *providers.Request) {
	e := providers.AsError(r.err)
	inBand := e != nil && !slices.Contains([]providers.ErrorKind{providers.Truncated, providers.Protocol, providers.EventTooLarge}, e.Kind)
	for d, is := range map[string]bool{
		"complete": r.complete, "truncated": e != nil && e.Kind == providers.Truncated, "in-band error": inBand,
		"usage": r.complete && r.usage != nil, "no usage": r.complete && r.usage == nil,
		"unicode": r.unicode, "length": slices.Contains(r.stops, "length"), "tools": r.tools > 1, "reasoning": r.thought,
		"malformed": r.progress.Malformed > 0, "whole": !req.Stream,
	} {
		met[d] = met[d] || is
	}
}

// compareGolden holds got against a file, or writes it when UPDATE_GOLDEN is set.
func compareGolden(t *testing.T, file, got string) (want string) {
	t.Helper()
	if os.Getenv("UPDATE_GOLDEN") != "" {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	text, err := os.ReadFile(file)
	if errors.Is(err, os.ErrNotExist) {
		t.Fatalf("%s is missing: write it with UPDATE_GOLDEN=1, then read it. It would hold\n%s", file, got)
	}
	if err != nil {
		t.Fatal(err)
	}
	if got != string(text) {
		t.Errorf("%s: got\n%s\nwant\n%s", file, got, text)
	}
	return string(text)
}
