package mii

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
	"sluice/providers/mii/wire"
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

func (f framed) stream(ctx context.Context, _ *job) (*messages, error) {
	ctx, cancel := context.WithCancel(ctx)
	return &messages{g: f.overGRPC, from: rpc.NewReader(ctx, cancel, &frames{body: f.body, each: f.each})}, nil
}

// framedSuite reads messages without a connection, of which so many come together.
func framedSuite(t testing.TB, each int) providertest.Suite {
	return providertest.Suite{Play: func(req *providers.Request, prog *streaming.Progress, body io.Reader) streaming.Stream {
		p := open(t, options(t, "http://127.0.0.1:1"))
		p.via = framed{p.via.(*overGRPC), body, each}
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

func TestAllocations(t *testing.T) {
	for _, each := range []int{1, 100} {
		t.Run(strconv.Itoa(each), func(t *testing.T) { framedSuite(t, each).Allocations(t, tokens(t), framing+1) })
	}
}

func BenchmarkStream(b *testing.B) { framedSuite(b, 100).Bench(b, tokens(b), framing+1) }
