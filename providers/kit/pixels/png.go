package pixels

import (
	"errors"
	"fmt"
	"hash/crc32"
)

const pngStart = "\x89PNG\r\n\x1a\n"

// maxChunks bounds how many chunks before the pixels are looked at for an orientation.
const maxChunks = 64

// inspectPNG reads the IHDR chunk (PNG, section 11.2.1) and the orientation, if one
// stands before the pixels.
func inspectPNG(data []byte) (Info, error) {
	info := Info{Format: PNG, Orientation: 1}
	const header = len(pngStart) + 8 + 13 + 4
	if len(data) < header {
		return info, truncated(PNG)
	}
	chunk := data[len(pngStart):]
	if be32(chunk) != 13 || string(chunk[4:8]) != "IHDR" {
		return info, errors.New("the PNG does not begin with its header")
	}
	if crc32.ChecksumIEEE(chunk[4:21]) != be32(chunk[21:]) {
		return info, errors.New("the PNG's header is damaged")
	}
	if err := info.takeIHDR(chunk[8:21]); err != nil {
		return info, err
	}
	info.Orientation = pngOrientation(data[header:])
	return info, nil
}

func (i *Info) takeIHDR(b []byte) error {
	w, h := be32(b), be32(b[4:])
	if w > 1<<31-1 || h > 1<<31-1 {
		return errors.New("the PNG's header is damaged")
	}
	i.Width, i.Height = int(w), int(h)
	depth, colour := b[8], b[9]
	perPixel := int64(4) // the largest form of 8 bits
	if depth == 16 {
		perPixel = 8
	}
	switch {
	case !pngDepth(depth, colour):
		return fmt.Errorf("the PNG has a colour type (%d) with a depth (%d) that do not go together", colour, depth)
	case b[10] != 0 || b[11] != 0 || b[12] > 1:
		return errors.New("the PNG uses a compression, filter or interlacing that is not defined")
	case b[12] == 1:
		perPixel *= 2 // every pass is an image of its own before it is merged
	}
	if i.Width <= maxSide && i.Height <= maxSide {
		i.memory = int64(i.Width) * int64(i.Height) * perPixel
	}
	return nil
}

// pngDepth reports whether a depth is allowed for a colour type (PNG, table 12).
func pngDepth(depth, colour byte) bool {
	switch colour {
	case 0:
		return depth == 1 || depth == 2 || depth == 4 || depth == 8 || depth == 16
	case 3:
		return depth == 1 || depth == 2 || depth == 4 || depth == 8
	case 2, 4, 6:
		return depth == 8 || depth == 16
	default:
		return false
	}
}

func pngOrientation(rest []byte) int {
	for range maxChunks {
		if len(rest) < 12 || string(rest[4:8]) == "IDAT" {
			return 1
		}
		n := int64(be32(rest))
		if n > int64(len(rest)-12) {
			return 1
		}
		if string(rest[4:8]) == "eXIf" {
			return orientation(rest[8 : 8+n])
		}
		rest = rest[12+n:]
	}
	return 1
}
