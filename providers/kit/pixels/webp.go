package pixels

import (
	"errors"
	"fmt"
)

// inspectWebP reads the container and the header of its one frame (RFC 9649). What the
// extended header claims must be what the frame has: a decoder sizes its memory by
// the frame.
func inspectWebP(data []byte) (Info, error) {
	w := webpReader{Info: Info{Format: WebP, Orientation: 1}}
	size := int64(le32(data[4:]))
	if size+8 > int64(len(data)) {
		return w.Info, truncated(WebP)
	}
	if size < 4 {
		return w.Info, errors.New("the WebP has a broken container")
	}
	rest := data[12 : 8+size]
	for range maxChunks {
		if len(rest) < 8 {
			break
		}
		name, n := string(rest[:4]), int64(le32(rest[4:]))
		if n > int64(len(rest)-8) {
			return w.Info, truncated(WebP)
		}
		if err := w.chunk(name, rest[8:8+n]); err != nil {
			return w.Info, err
		}
		rest = rest[min(8+n+n&1, int64(len(rest))):]
	}
	if !w.framed {
		return w.Info, errors.New("the WebP has no picture")
	}
	return w.Info, nil
}

type webpReader struct {
	Info
	extended, framed          bool
	canvasWidth, canvasHeight int
}

func (w *webpReader) chunk(name string, b []byte) error {
	switch name {
	case "VP8X":
		return w.takeCanvas(b)
	case "VP8 ":
		return w.takeLossy(b)
	case "VP8L":
		return w.takeLossless(b)
	case "EXIF":
		w.Orientation = orientation(b)
	case "ANIM", "ANMF":
		return errors.New("the WebP is animated, which is not supported")
	}
	return nil
}

func (w *webpReader) takeCanvas(b []byte) error {
	if len(b) < 10 {
		return truncated(WebP)
	}
	if w.extended || w.framed {
		return errors.New("the WebP has its parts in a wrong order")
	}
	const animated = 2
	if b[0]&animated != 0 {
		return errors.New("the WebP is animated, which is not supported")
	}
	w.extended = true
	w.canvasWidth, w.canvasHeight = 1+le24(b[4:]), 1+le24(b[7:])
	return nil
}

// takeLossy reads a VP8 frame header (RFC 6386, section 9.1).
func (w *webpReader) takeLossy(b []byte) error {
	if len(b) < 10 {
		return truncated(WebP)
	}
	if b[0]&1 != 0 || string(b[3:6]) != "\x9d\x01\x2a" {
		return errors.New("the WebP does not begin with a key frame")
	}
	first := int(b[0]) | int(b[1])<<8 | int(b[2])<<16
	if first>>5 > len(b)-10 {
		return truncated(WebP)
	}
	width, height := int(b[6])|int(b[7])<<8, int(b[8])|int(b[9])<<8
	return w.frame(width&0x3fff, height&0x3fff, 3) // 4:2:0, an alpha plane, and work space
}

// takeLossless reads a VP8L header (RFC 9649, section 3.4).
func (w *webpReader) takeLossless(b []byte) error {
	if len(b) < 5 {
		return truncated(WebP)
	}
	bits := le32(b[1:])
	if b[0] != 0x2f || bits>>29 != 0 {
		return errors.New("the WebP has a broken lossless header")
	}
	return w.frame(1+int(bits&0x3fff), 1+int(bits>>14&0x3fff), 8)
}

func (w *webpReader) frame(width, height int, perPixel int64) error {
	if w.framed {
		return errors.New("the WebP has more than one picture")
	}
	if w.extended && (width != w.canvasWidth || height != w.canvasHeight) {
		return fmt.Errorf("the WebP claims %d x %d pixels, but its picture has %d x %d", w.canvasWidth, w.canvasHeight, width, height)
	}
	w.framed = true
	w.Width, w.Height = width, height
	w.memory = int64(width+16) * int64(height+16) * perPixel
	return nil
}

func le24(b []byte) int { return int(b[0]) | int(b[1])<<8 | int(b[2])<<16 }
