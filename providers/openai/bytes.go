package openai

import (
	"io"
	"sync"

	"sluice/providers"
	"sluice/streaming"
)

// A body that is passed on unread is waited for with a small buffer, for it may be a
// stream that is silent for long, and read with a large one while it fills that.
const (
	idlePiece = 4 << 10
	busyPiece = 32 << 10
)

var busyPieces = sync.Pool{New: func() any { return new([busyPiece]byte) }}

// relayBytes passes a body on unread.
func (p *Provider) relayBytes(body io.Reader, yield yielder) bool {
	var large *[busyPiece]byte
	defer func() {
		if large != nil {
			busyPieces.Put(large)
		}
	}()
	small := make([]byte, idlePiece)
	buf := small
	for {
		n, err := body.Read(buf)
		if n > 0 && !yield([]streaming.Event{{Kind: streaming.Bytes, Raw: buf[:n], Dialect: streaming.Opaque}}, nil) {
			return false
		}
		switch {
		case err == io.EOF:
			return true
		case err != nil:
			yield(nil, &providers.Error{Kind: providers.Truncated, Target: p.name, Message: "the connection to the upstream broke before the answer was finished", Err: err})
			return false
		case large == nil && n > len(buf)-len(buf)/4: // a decoder in between may have taken the framing off
			large = busyPieces.Get().(*[busyPiece]byte)
			buf = large[:]
		case large != nil && n <= idlePiece:
			busyPieces.Put(large)
			large, buf = nil, small
		}
	}
}
