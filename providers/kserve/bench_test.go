package kserve

import (
	"context"
	"encoding/binary"
	"io"
	"slices"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"sluice/providers"
	"sluice/providers/kserve/oip"
	"sluice/providers/providertest"
	"sluice/streaming"
)

// frames is the client's side of a stream whose messages come in the framing of gRPC
// over HTTP/2: a flag, four bytes of length, the message.
type frames struct {
	grpc.ClientStream
	body io.Reader
	one  []byte
}

func (f *frames) RecvMsg(m any) error {
	var head [5]byte
	if _, err := io.ReadFull(f.body, head[:]); err != nil {
		return err
	}
	n := int(binary.BigEndian.Uint32(head[1:]))
	f.one = slices.Grow(f.one[:0], n)[:n]
	if _, err := io.ReadFull(f.body, f.one); err != nil {
		return err
	}
	return proto.Unmarshal(f.one, m.(proto.Message))
}

func appendFrame(t testing.TB, dst []byte, m proto.Message) []byte {
	t.Helper()
	body, err := proto.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return append(binary.BigEndian.AppendUint32(append(dst, 0), uint32(len(body))), body...)
}

// framed has the stream of every call at hand.
type framed struct {
	*overGRPC
	body io.Reader
}

func (f framed) generate(_ context.Context, _ *call, take func(*answer) bool) error {
	return f.relay(tritonStream{&frames{body: f.body}}, take)
}

// framedSuite reads messages without a connection.
func framedSuite(t testing.TB) providertest.Suite {
	return providertest.Suite{Play: func(req *providers.Request, prog *streaming.Progress, body io.Reader) streaming.Stream {
		p := newProvider("http://127.0.0.1:1", overGRPCOf(false), writerSchema(t))
		t.Cleanup(func() { _ = p.via.(framed).cc.Close() })
		p.via = framed{p.via.(*overGRPC), body}
		return p.Target(providertest.Model).Stream(t.Context(), req, prog)
	}}
}

// messages is an answer of so many messages with text, and its end.
func messages(t testing.TB) func(events int) []byte {
	return func(events int) (out []byte) {
		outputs := []*oip.ModelInferResponse_InferOutputTensor{{Name: "text_output", Datatype: bytesType, Shape: []int64{1}}, {Name: "finish_reason", Datatype: bytesType, Shape: []int64{1}}}
		m := &oip.ModelInferResponse{ModelName: "m", ModelVersion: "1", Outputs: outputs, Parameters: map[string]*oip.InferParameter{markFinal: boolParameter(false)}}
		say := func(text, finish string) {
			m.RawOutputContents = [][]byte{appendString(nil, text), appendString(nil, finish)}
			out = appendFrame(t, out, &oip.ModelStreamInferResponse{InferResponse: m})
		}
		for range events {
			say(" token", "None")
		}
		m.Parameters[markFinal] = boolParameter(true)
		say("", "stop")
		return out
	}
}

// decoding is what the library allocates for a message of two tensors and a parameter,
// beside its text.
const decoding = 27

func TestAllocationsGRPC(t *testing.T) { framedSuite(t).Allocations(t, messages(t), decoding+1) }

func BenchmarkStreamGRPC(b *testing.B) { framedSuite(b).Bench(b, messages(b), decoding+1) }
