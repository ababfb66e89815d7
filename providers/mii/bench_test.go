package mii

import (
	"context"
	"encoding/binary"
	"io"
	"slices"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"sluice/providers"
	"sluice/providers/mii/wire"
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

func (f framed) stream(context.Context, *job) (func() (reply, error), error) {
	return f.receiver(&frames{body: f.body}), nil
}

// framedSuite reads messages without a connection.
func framedSuite(t testing.TB) providertest.Suite {
	return providertest.Suite{Play: func(req *providers.Request, prog *streaming.Progress, body io.Reader) streaming.Stream {
		p := open(t, options(t, "http://127.0.0.1:1"))
		p.via = framed{p.via.(*overGRPC), body}
		return p.Target(providertest.Model).Stream(t.Context(), req, prog)
	}}
}

// tokens is an answer of so many messages with text, and its end.
func tokens(t testing.TB) func(events int) []byte {
	return func(events int) (out []byte) {
		one := &wire.SingleGenerationReply{Response: " token", FinishReason: "none", PromptTokens: 3, TimeTaken: -1, ModelTimeTaken: -1}
		all := &wire.MultiGenerationReply{Response: []*wire.SingleGenerationReply{one}}
		for i := range events {
			one.GeneratedTokens = int64(i + 1)
			out = appendFrame(t, out, all)
		}
		one.Response, one.FinishReason = "", "stop"
		return appendFrame(t, out, all)
	}
}

// decoding is what the library allocates for a message, beside its text.
const decoding = 5

func TestAllocations(t *testing.T) { framedSuite(t).Allocations(t, tokens(t), decoding+1) }

func BenchmarkStream(b *testing.B) { framedSuite(b).Bench(b, tokens(b), decoding+1) }
