package kserve

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"slices"
	"strconv"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/proto"

	"sluice/providers"
	"sluice/providers/kit/rpc"
	"sluice/providers/kserve/oip"
	"sluice/providers/providertest"
	"sluice/streaming"
)

// framing is what frames allocate for each message.
const framing = 1

// frames is the client's side of a stream whose messages come in the framing of gRPC
// over HTTP/2: a flag, four bytes of length, the message. So many come together, and none
// so soon that the reader reads ahead: what is measured does not depend on its timing.
type frames struct {
	grpc.ClientStream
	body  io.Reader
	each  int
	heads [5]byte
	one   []byte
}

func (f *frames) RecvMsg(m any) error {
	for began := streaming.Uptime(); streaming.Uptime()-began < 20*time.Microsecond; {
	}
	for i := range max(f.each, 1) {
		if err := f.read(m); err != nil {
			if i > 0 && errors.Is(err, io.EOF) {
				return nil
			}
			return err
		}
	}
	return nil
}

func (f *frames) read(m any) error {
	if _, err := io.ReadFull(f.body, f.heads[:]); err != nil {
		return err
	}
	n := int(binary.BigEndian.Uint32(f.heads[1:]))
	f.one = slices.Grow(f.one[:0], n)[:n]
	if _, err := io.ReadFull(f.body, f.one); err != nil {
		return err
	}
	return rpc.Codec{}.Unmarshal(mem.BufferSlice{mem.SliceBuffer(f.one)}, m)
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
	each int
}

func (f framed) generate(ctx context.Context, _ *call, take func(*answer) bool) error {
	ctx, cancel := context.WithCancel(ctx)
	s := rpc.NewReader(ctx, cancel, &frames{body: f.body, each: f.each})
	defer s.Close()
	return f.relay(s, take)
}

// framedSuite reads messages without a connection, of which so many come together.
func framedSuite(t testing.TB, each int) providertest.Suite {
	return providertest.Suite{Play: func(req *providers.Request, prog *streaming.Progress, body io.Reader) streaming.Stream {
		p := newProvider("http://127.0.0.1:1", overGRPCOf(false), writerSchema(t))
		t.Cleanup(func() { _ = p.via.(framed).cc.Close() })
		p.via = framed{p.via.(*overGRPC), body, each}
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

func TestAllocationsGRPC(t *testing.T) {
	for _, each := range []int{1, 100} {
		t.Run(strconv.Itoa(each), func(t *testing.T) { framedSuite(t, each).Allocations(t, messages(t), framing+1) })
	}
}

func BenchmarkStreamGRPC(b *testing.B) { framedSuite(b, 100).Bench(b, messages(b), framing+1) }
