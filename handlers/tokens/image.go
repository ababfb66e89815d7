package tokens

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
)

// The tile rule of OpenAI's vision models ("Images and vision"): a base, and so much for
// each tile of an image that has been brought to fit.
const (
	imageBase = 85
	imageTile = 170
	tileSide  = 512
	shortSide = 768
	longSide  = 2048
	// imageUnknown is an image of 1024 x 1024: one of which the size is not known.
	imageUnknown = imageBase + 4*imageTile
)

// image is what one image costs. url is a quoted string, as is detail.
func (m *Model) image(url, detail []byte) int64 {
	switch {
	case m.ImageTokens > 0:
		return m.ImageTokens
	case string(detail) == `"low"`:
		return imageBase
	}
	w, h, ok := size(url)
	if !ok {
		return imageUnknown
	}
	return tiles(w, h)
}

// tiles applies the rule to an image of w x h pixels.
func tiles(w, h int64) int64 {
	if most := max(w, h); most > longSide {
		w, h = max(w*longSide/most, 1), max(h*longSide/most, 1)
	}
	if least := min(w, h); least > shortSide {
		w, h = w*shortSide/least, h*shortSide/least
	}
	return imageBase + imageTile*((w+tileSide-1)/tileSide)*((h+tileSide-1)/tileSide)
}

// maxHeader is how much of an image is looked at: JPEGs may have a preview before their
// size is told.
const maxHeader = 128 << 10

// maxSide is the longest side that is believed.
const maxSide = 1 << 16

// size reads the size of an image in a data URL, from its first bytes.
func size(quoted []byte) (w, h int64, ok bool) {
	mark := []byte(";base64,")
	at := bytes.Index(quoted, mark)
	if at < 0 || !bytes.HasPrefix(quoted, []byte(`"data:`)) || at > 128 {
		return 0, 0, false
	}
	text := quoted[at+len(mark):]
	text = text[:min(len(text), maxHeader)/4*4]
	data := make([]byte, base64.StdEncoding.DecodedLen(len(text)))
	n, _ := base64.StdEncoding.Decode(data, text) // what stands before a fault is enough
	w, h = sizeOf(data[:n])
	return w, h, w > 0 && h > 0 && w <= maxSide && h <= maxSide
}

func sizeOf(b []byte) (w, h int64) {
	switch {
	case bytes.HasPrefix(b, []byte("\x89PNG\r\n\x1a\n")) && len(b) >= 24:
		return int64(binary.BigEndian.Uint32(b[16:])), int64(binary.BigEndian.Uint32(b[20:]))
	case bytes.HasPrefix(b, []byte("GIF8")) && len(b) >= 10:
		return int64(binary.LittleEndian.Uint16(b[6:])), int64(binary.LittleEndian.Uint16(b[8:]))
	case len(b) >= 30 && string(b[:4]) == "RIFF" && string(b[8:12]) == "WEBP":
		return sizeOfWebP(b)
	case bytes.HasPrefix(b, []byte("\xff\xd8")):
		return sizeOfJPEG(b[2:])
	default:
		return 0, 0
	}
}

// sizeOfWebP knows the three forms of RFC 9649.
func sizeOfWebP(b []byte) (w, h int64) {
	switch string(b[12:16]) {
	case "VP8 ":
		return int64(binary.LittleEndian.Uint16(b[26:]) & 0x3fff), int64(binary.LittleEndian.Uint16(b[28:]) & 0x3fff)
	case "VP8L":
		v := binary.LittleEndian.Uint32(b[21:])
		return int64(v&0x3fff) + 1, int64(v>>14&0x3fff) + 1
	case "VP8X":
		three := func(b []byte) int64 { return int64(b[0]) | int64(b[1])<<8 | int64(b[2])<<16 }
		return three(b[24:]) + 1, three(b[27:]) + 1
	default:
		return 0, 0
	}
}

// sizeOfJPEG walks the segments up to a start of frame (ITU-T T.81 B.1).
func sizeOfJPEG(b []byte) (w, h int64) {
	for len(b) >= 9 && b[0] == 0xff {
		kind := b[1]
		switch {
		case kind == 0xff: // a fill byte
			b = b[1:]
			continue
		case kind >= 0xc0 && kind <= 0xcf && kind != 0xc4 && kind != 0xc8 && kind != 0xcc:
			return int64(binary.BigEndian.Uint16(b[7:])), int64(binary.BigEndian.Uint16(b[5:]))
		}
		next := 2 + int(binary.BigEndian.Uint16(b[2:]))
		if next < 4 || next > len(b) {
			return 0, 0
		}
		b = b[next:]
	}
	return 0, 0
}
