package kserve

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"slices"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"sluice/providers"
	"sluice/providers/kserve/oip"
	"sluice/streaming"
)

// streamed is a message of a stream in either form.
func streamed(t testing.TB, m *oip.ModelInferResponse, plain bool) []byte {
	t.Helper()
	var all proto.Message = m
	if !plain {
		all = &oip.ModelStreamInferResponse{InferResponse: m}
	}
	b, err := proto.MarshalOptions{Deterministic: true}.Marshal(all)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func textOutput(raw bool, text string) *oip.ModelInferResponse {
	o := &oip.ModelInferResponse_InferOutputTensor{Name: "text", Datatype: bytesType, Shape: []int64{1, 1}}
	m := &oip.ModelInferResponse{ModelName: "m", ModelVersion: "1", Id: "7", Outputs: []*oip.ModelInferResponse_InferOutputTensor{o}}
	if raw {
		m.RawOutputContents = [][]byte{appendString(nil, text)}
	} else {
		o.Contents = &oip.InferTensorContents{BytesContents: [][]byte{[]byte(text)}}
	}
	return m
}

// TestCommonMessages shows which forms need no generated code.
func TestCommonMessages(t *testing.T) {
	marked := textOutput(true, "a")
	marked.Parameters = map[string]*oip.InferParameter{markFinal: boolParameter(true), "n": intParameter(-1)}
	words := textOutput(true, "a")
	words.Parameters = map[string]*oip.InferParameter{"s": {ParameterChoice: &oip.InferParameter_StringParam{StringParam: "x"}}}
	numbers := textOutput(true, "a")
	numbers.Outputs[0].Datatype, numbers.Outputs[0].Shape, numbers.RawOutputContents = "INT32", []int64{2}, [][]byte{make([]byte, 8)}
	typed := &oip.ModelInferResponse{Outputs: []*oip.ModelInferResponse_InferOutputTensor{
		{Name: "n", Datatype: "FP32", Shape: []int64{1}, Contents: &oip.InferTensorContents{Fp32Contents: []float32{1}}}}}
	for name, c := range map[string]struct {
		m      *oip.ModelInferResponse
		common bool
	}{
		"raw": {textOutput(true, "a"), true}, "strings": {textOutput(false, "a"), true}, "with parameters": {marked, true},
		"raw numbers": {numbers, true}, "a text as parameter": {words, false}, "typed numbers": {typed, false},
	} {
		for _, plain := range []bool{false, true} {
			r := messageReader{plain: plain}
			if _, ok, err := r.common(streamed(t, c.m, plain)); ok != c.common || err != nil {
				t.Errorf("%s, plain %t: %t, %v", name, plain, ok, err)
			}
		}
	}
}

// TestAgain: a head that is known is not read again, and what differs is.
func TestAgain(t *testing.T) {
	final := textOutput(true, "c")
	final.Parameters = map[string]*oip.InferParameter{markFinal: boolParameter(true)}
	r := messageReader{}
	for i, m := range []*oip.ModelInferResponse{textOutput(true, "a"), textOutput(true, "bb"), final, textOutput(false, "d"), textOutput(true, "e")} {
		if again := r.again(streamed(t, m, true)); again != (i == 1) {
			t.Errorf("message %d is like the one before: %t", i, again)
		}
		a, err := r.read(streamed(t, m, false))
		if want, _ := readMessage(m); err != nil || differ(a, want) != "" {
			t.Errorf("message %d: %v, %s", i, err, differ(a, want))
		}
	}
}

// differ says how an answer is not the wanted one.
func differ(a, want *answer) string {
	if a.final != want.final || len(a.tensors) != len(want.tensors) {
		return fmt.Sprintf("final %t, %d tensors; want %t, %d", a.final, len(a.tensors), want.final, len(want.tensors))
	}
	for i, t := range a.tensors {
		w := want.tensors[i]
		if t.name != w.name || t.datatype != w.datatype || !slices.Equal(t.shape, w.shape) || !bytes.Equal(t.data, w.data) {
			return fmt.Sprintf("tensor %d is %+v; want %+v", i, t, w)
		}
	}
	return ""
}

// TestTogether: messages that come together are one answer, and a broken one or an error
// leaves what came before it.
func TestTogether(t *testing.T) {
	const n = 500
	frame := func(body, m []byte) []byte {
		return append(binary.BigEndian.AppendUint32(append(body, 0), uint32(len(m))), m...)
	}
	tokens := messages(t)(n)
	begun := 0 // bytes of all but the last message
	for at := 0; at < len(tokens); at += 5 + int(binary.BigEndian.Uint32(tokens[at+1:])) {
		begun = at
	}
	failed := protowire.AppendString(protowire.AppendTag(nil, 1, protowire.BytesType), "failed")
	for name, c := range map[string]struct {
		body []byte
		kind providers.ErrorKind // 0: it ends well
	}{
		"whole": {tokens, 0}, "broken": {frame(slices.Clone(tokens[:begun]), []byte{0xff}), providers.Protocol},
		"an error": {frame(slices.Clone(tokens[:begun]), failed), providers.UpstreamFailed}, "without an end": {tokens[:begun], providers.Truncated},
	} {
		t.Run(name, func(t *testing.T) {
			req, err := providers.Parse(providers.Chat, "/x", "application/json", []byte(`{"model":"m","stream":true,"messages":[{"role":"user","content":"Hi"}]}`), 64)
			if err != nil {
				t.Fatal(err)
			}
			texts, stops, kind := 0, 0, providers.ErrorKind(0)
			for batch, err := range framedSuite(t, 64).Play(req, streaming.NewProgress(time.Now()), bytes.NewReader(c.body)) {
				if err != nil {
					kind = providers.AsError(err).Kind
				}
				for _, ev := range batch {
					switch ev.Kind {
					case streaming.Text:
						texts++
					case streaming.Stop:
						stops++
					}
				}
			}
			if texts != n || kind != c.kind || (stops == 1) != (c.kind == 0) {
				t.Errorf("%d texts, %d stops, error of kind %v", texts, stops, kind)
			}
		})
	}
}

// FuzzMessages holds the reader against the generated code, over messages of one stream.
func FuzzMessages(f *testing.F) {
	final := textOutput(true, "")
	final.Parameters = map[string]*oip.InferParameter{markFinal: boolParameter(true)}
	for _, plain := range []bool{false, true} {
		raw, strings, last := streamed(f, textOutput(true, "a"), plain), streamed(f, textOutput(false, "é"), plain), streamed(f, final, plain)
		f.Add(raw, streamed(f, textOutput(true, "other"), plain), plain)
		f.Add(strings, raw, plain)
		f.Add(last, raw, plain)
		f.Add(append(slices.Clone(raw), raw...), last, plain) // which are merged
		f.Add(raw[:len(raw)-1], append(slices.Clone(raw), strings...), plain)
	}
	outputs := &oip.ModelInferResponse{Outputs: textOutput(true, "").Outputs}
	raw := appendString(nil, "a")
	first := protowire.AppendBytes(protowire.AppendTag(streamed(f, outputs, true), inResponseRaw, protowire.BytesType), raw)
	f.Add(protowire.AppendString(protowire.AppendTag(slices.Clone(first), inResponseID, protowire.BytesType), "12345"),
		protowire.AppendBytes(protowire.AppendTag(slices.Clone(first), inResponseRaw, protowire.BytesType), raw), true)
	f.Add(protowire.AppendString(protowire.AppendTag(nil, 1, protowire.BytesType), "failed"), []byte{}, false)
	f.Fuzz(func(t *testing.T, first, second []byte, plain bool) {
		r := messageReader{plain: plain}
		for _, text := range [][]byte{first, second, second, first} {
			a, err := r.read(text)
			want, wantErr := readAny(text, plain)
			switch {
			case (err == nil) != (wantErr == nil) || err != nil && err.Error() != wantErr.Error():
				t.Fatalf("%x: %v; want %v", text, err, wantErr)
			case err == nil && differ(a, want) != "":
				t.Fatalf("%x: %s", text, differ(a, want))
			}
		}
	})
}
