package rpc

import (
	"fmt"

	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/encoding/proto"
	"google.golang.org/grpc/mem"
)

// Codec writes messages of Protocol Buffers, and hands those that come to a Reader as
// they are.
type Codec struct{}

// Marshal implements encoding.CodecV2.
func (Codec) Marshal(v any) (mem.BufferSlice, error) {
	return encoding.GetCodecV2(proto.Name).Marshal(v)
}

// Unmarshal implements encoding.CodecV2: it adds a message to what a Reader has.
func (Codec) Unmarshal(data mem.BufferSlice, v any) error {
	p, ok := v.(*pile)
	if !ok {
		return fmt.Errorf("a %T takes no messages", v)
	}
	for _, b := range data {
		p.data = append(p.data, b.ReadOnlyData()...)
	}
	p.ends = append(p.ends, len(p.data))
	return nil
}

// Name implements encoding.CodecV2. It is what the content type says behind
// "application/grpc", where servers expect nothing.
func (Codec) Name() string { return "" }

// pile holds messages one behind the other.
type pile struct {
	data []byte
	ends []int // of each in data
}

func (p *pile) clear() {
	p.data, p.ends = p.data[:0], p.ends[:0]
	if cap(p.data) > keptBytes {
		p.data = nil
	}
}

func (p *pile) empty() bool { return len(p.ends) == 0 }

func (p *pile) full() bool { return len(p.ends) >= aheadMessages || len(p.data) >= aheadBytes }

func (p *pile) add(other *pile) {
	at := len(p.data)
	p.data = append(p.data, other.data...)
	for _, end := range other.ends {
		p.ends = append(p.ends, at+end)
	}
}

// messages returns the messages, in the memory of views.
func (p *pile) messages(views [][]byte) [][]byte {
	views = views[:0]
	at := 0
	for _, end := range p.ends {
		views, at = append(views, p.data[at:end:end]), end
	}
	return views
}
