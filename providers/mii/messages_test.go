package mii

import (
	"bytes"
	"context"
	"encoding/binary"
	"slices"
	"testing"

	"google.golang.org/protobuf/proto"

	"sluice/providers"
	"sluice/providers/mii/wire"
	"sluice/streaming"
)

func marshal(t testing.TB, m proto.Message) []byte {
	t.Helper()
	b, err := proto.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func replyOf(all ...*wire.SingleGenerationReply) *wire.MultiGenerationReply {
	return &wire.MultiGenerationReply{Response: all}
}

// TestReadSingle shows which messages need no generated code.
func TestReadSingle(t *testing.T) {
	one := &wire.SingleGenerationReply{Response: "é", FinishReason: "none", PromptTokens: 3, GeneratedTokens: 1, TimeTaken: -1, ModelTimeTaken: -1}
	strange := proto.Clone(one).(*wire.SingleGenerationReply)
	strange.ProtoReflect().SetUnknown([]byte{0x78, 1})
	for name, c := range map[string]struct {
		text []byte
		ok   bool
	}{
		"a token": {marshal(t, replyOf(one)), true}, "nothing in it": {marshal(t, replyOf(&wire.SingleGenerationReply{})), true},
		"no answer": {marshal(t, replyOf()), false}, "two answers": {marshal(t, replyOf(one, one)), false},
		"an unknown field": {marshal(t, replyOf(strange)), false}, "cut": {marshal(t, replyOf(one))[:9], false},
		"no text": {[]byte{10, 3, 10, 1, 0xff}, false},
	} {
		if _, ok := readSingle(c.text); ok != c.ok {
			t.Errorf("%s: %t", name, ok)
		}
	}
}

// answerOf plays messages that come together.
func answerOf(t *testing.T, members string, all ...[]byte) heard {
	t.Helper()
	var body []byte
	for _, m := range all {
		body = append(binary.BigEndian.AppendUint32(append(body, 0), uint32(len(m))), m...)
	}
	req, suite := chat(t, `,"stream":true`+members), framedSuite(t, 64)
	return hear(t, playing(func(prog *streaming.Progress) streaming.Stream { return suite.Play(req, prog, bytes.NewReader(body)) }), req)
}

// playing is a provider of one stream.
type playing func(*streaming.Progress) streaming.Stream

func (p playing) Stream(_ context.Context, _ *providers.Request, prog *streaming.Progress) streaming.Stream {
	return p(prog)
}

// TestTogether: messages that come together are one answer, whatever the batches: a stop
// sequence ends it with the usage of its own message, and a broken one leaves what came
// before it.
func TestTogether(t *testing.T) {
	const n = 500
	var all [][]byte
	for i := range n {
		one := &wire.SingleGenerationReply{Response: "a", FinishReason: "none", PromptTokens: 3, GeneratedTokens: int64(i + 1)}
		if i == n/2 {
			one.Response = "X"
		}
		all = append(all, marshal(t, replyOf(one)))
	}
	whole := append(slices.Clone(all), marshal(t, replyOf(&wire.SingleGenerationReply{FinishReason: "length", PromptTokens: 3, GeneratedTokens: n})))
	if h := answerOf(t, "", whole...); h.err != nil || len(h.text) != n || h.stop != "length" || h.usage.Completion != n {
		t.Errorf("whole: %d bytes, %q, %+v, %v", len(h.text), h.stop, h.usage, h.err)
	}
	if h := answerOf(t, `,"stop":"X"`, whole...); h.err != nil || len(h.text) != n/2 || h.stop != "stop" || h.usage.Completion != n/2+1 {
		t.Errorf("with a stop sequence: %d bytes, %q, %+v, %v", len(h.text), h.stop, h.usage, h.err)
	}
	if h := answerOf(t, "", append(slices.Clone(all), []byte{0xff})...); h.err == nil || h.err.Kind != providers.Protocol || len(h.text) != n || h.stop != "" {
		t.Errorf("broken: %d bytes, %q, %v", len(h.text), h.stop, h.err)
	}
	if h := answerOf(t, "", all...); h.err == nil || h.err.Kind != providers.Truncated || len(h.text) != n {
		t.Errorf("without an end: %d bytes, %v", len(h.text), h.err)
	}
}

// FuzzReadSingle holds the reader against the generated code.
func FuzzReadSingle(f *testing.F) {
	one := &wire.SingleGenerationReply{Response: "a", FinishReason: "stop", PromptTokens: 3, GeneratedTokens: 1, TimeTaken: -1, ModelTimeTaken: -1}
	text := marshal(f, replyOf(one))
	f.Add(text)
	f.Add(marshal(f, replyOf(one, one)))
	f.Add(text[:len(text)-1])
	f.Add(append(slices.Clone(text), 0x78, 1))
	f.Add(marshal(f, &wire.GenerationReply{Response: []string{"a"}}))
	f.Fuzz(func(t *testing.T, text []byte) {
		s, ok := readSingle(text)
		if !ok {
			return
		}
		var m wire.MultiGenerationReply
		if err := proto.Unmarshal(text, &m); err != nil || len(m.Response) != 1 {
			t.Fatalf("%x: %+v; want %v, %v", text, s, &m, err)
		}
		if w := m.Response[0]; string(s.text) != w.Response || word(s.finish) != w.FinishReason || s.prompt != w.PromptTokens || s.generated != w.GeneratedTokens {
			t.Fatalf("%x: %+v; want %v", text, s, w)
		}
	})
}
