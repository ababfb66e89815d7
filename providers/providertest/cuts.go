package providertest

import (
	"bytes"
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	"sluice/providers"
	"sluice/streaming"
)

// fewCuts is how many places of a transcript are tried over a connection.
const fewCuts = 24

// cuts ends every complete transcript early, at every byte, by the end of the body and
// by a broken connection. A cut answer is told from a whole one, and what came before
// the cut is what stands there in the whole.
func (s *Suite) cuts(t *testing.T) {
	for _, tr := range s.load(t) {
		full := s.play(t, tr.req, feed{text: tr.text})
		if !full.complete {
			continue
		}
		t.Run(tr.name(), func(t *testing.T) {
			for _, at := range s.places(tr.text) {
				for _, broken := range []bool{false, true} {
					got := s.play(t, tr.req, feed{text: tr.text[:at], broken: broken})
					if !s.judgeCut(t, tr, got, full) {
						t.Fatalf("cut at byte %d, broken %t, behind %q:\n%s", at, broken, tail(tr.text[:at]), got.golden())
					}
				}
			}
		})
	}
}

// places are the offsets at which a transcript is cut.
func (s *Suite) places(text []byte) []int {
	var all []int
	for at := range text {
		if !s.Messages && (at%stride == 0 || telling(text, at)) || at == 0 || text[at-1] == '\n' {
			all = append(all, at)
		}
	}
	if s.Play != nil || len(all) <= fewCuts {
		return all
	}
	var some []int
	for i := range fewCuts {
		some = append(some, all[i*len(all)/fewCuts])
	}
	return some
}

// telling places are where readers go wrong.
func telling(text []byte, at int) bool {
	return slices.ContainsFunc(text[max(0, at-1):at+1], func(ch byte) bool { return ch >= 0x80 || ch == '\n' || ch == '\\' })
}

func tail(text []byte) []byte { return text[max(0, len(text)-60):] }

// judgeCut: a cut answer fails as one, or nothing that matters was missing from it.
func (s *Suite) judgeCut(t *testing.T, tr *transcript, got, full *record) bool {
	t.Helper()
	ok := len(got.faults) == 0
	for _, fault := range got.faults {
		t.Error(fault)
	}
	for i, c := range got.content {
		whole := ""
		if f := full.content[i]; f != nil {
			whole = f.String()
		}
		if have := c.String(); got.complete && have != whole || !strings.HasPrefix(whole, have) {
			t.Errorf("choice %d is %q, in the whole answer %q", i, have, whole)
			ok = false
		}
	}
	if e := providers.AsError(got.err); e != nil && e.Kind != providers.Truncated && (tr.req.Stream && !s.AtOnce || e.Kind != providers.Protocol) {
		t.Errorf("a cut answer is an error of kind %d: %v", e.Kind, e)
		ok = false
	}
	return ok
}

// leaving stops ranging behind every batch; a stream that yields once more panics.
func (s *Suite) leaving(t *testing.T) {
	if s.Play == nil {
		t.Skip("over a connection, cancel covers it")
	}
	for _, tr := range s.load(t) {
		for most := 1; ; most++ {
			p := streaming.NewProgress(time.Now())
			if got := listen(s.Play(tr.req, p, lineReader(tr.text)), p, most); got.batches < most {
				break
			}
		}
	}
}

// lineReader gives a line per read.
func lineReader(text []byte) *lines { return &lines{bytes.SplitAfter(text, []byte("\n"))} }

type lines struct{ rest [][]byte }

func (l *lines) Read(p []byte) (int, error) {
	for len(l.rest) > 0 && len(l.rest[0]) == 0 {
		l.rest = l.rest[1:]
	}
	if len(l.rest) == 0 {
		return 0, errEnd
	}
	n := copy(p, l.rest[0])
	l.rest[0] = l.rest[0][n:]
	return n, nil
}

// large sends one event beyond what a scanner of the standard library reads, and one
// beyond the limit.
func (s *Suite) large(t *testing.T) {
	if s.Large == nil {
		t.Skip("the protocol has no large events")
	}
	req := parse(t, "chat", defaultBody("chat"))
	for _, size := range []int{65 << 10, MaxEvent / 2} {
		if got := s.play(t, req, feed{text: s.Large(size)}); !got.complete || len(got.faults) > 0 {
			t.Errorf("an event of %d bytes: %v %v", size, got.err, got.faults)
		} else if n := len(got.content[0].String()); n < size/2 {
			t.Errorf("of an event of %d bytes came %d", size, n)
		}
	}
	over := map[string]feed{"whole": {text: s.Large(MaxEvent + 64<<10)}}
	if !s.Messages {
		over["not ended"] = feed{text: cutShort(over["whole"].text)}
	}
	for how, f := range over {
		if e := providers.AsError(s.play(t, req, f).err); e == nil || e.Kind != providers.EventTooLarge {
			t.Errorf("an event over the limit, %s: %v", how, e)
		}
	}
}

// cutShort leaves out the end of the one event.
func cutShort(text []byte) []byte { return text[:len(text)-len(text)/64] }

// requests shows what the adapter makes of callers' requests.
func (s *Suite) requests(t *testing.T) {
	folder := s.Dir + "/requests/"
	files := glob(t, folder+"*.json")
	if len(files) == 0 {
		t.Skip(folder + " is empty")
	}
	samples := s.samples(t)
	for _, file := range files {
		t.Run(strings.TrimSuffix(file[len(folder):], ".json"), func(t *testing.T) {
			settle(t)
			req := parse(t, file, read(t, file))
			var sent strings.Builder
			script := s.script(req, samples[req.Stream])
			script.Asked = recordRequest(&sent)
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			p := streaming.NewProgress(time.Now())
			got := listen(s.New(t, s.serve(t, script)).Stream(ctx, req, p), p, 0)
			if got.dropped != "" {
				sent.WriteString("dropped: " + got.dropped + "\n")
			}
			if e := providers.AsError(got.err); e != nil && slices.Contains([]providers.ErrorKind{providers.BadRequest, providers.NotFound, providers.Passed}, e.Kind) {
				sent.WriteString("refused: param=" + e.Param + " message=" + e.Message + "\n")
			}
			compareGolden(t, strings.TrimSuffix(file, ".json")+".sent", sent.String())
		})
	}
}

// samples are complete answers to chat requests, by whether they are streamed: the
// longest of each.
func (s *Suite) samples(t *testing.T) map[bool][]byte {
	t.Helper()
	out := map[bool][]byte{}
	for _, tr := range s.load(t) {
		if stream := tr.req.Stream; len(tr.text) > len(out[stream]) && tr.req.Op == providers.Chat && tr.req.Choices == 1 && s.play(t, tr.req, feed{text: tr.text}).complete {
			out[stream] = tr.text
		}
	}
	return out
}
