package pixels

import (
	"bytes"
	"errors"
	"fmt"
)

const jpegStart = "\xff\xd8"

// maxScans bounds the scans of a progressive JPEG. Encoders write about ten; each
// further one costs a pass over all blocks and only a few bytes, so that a small file
// could keep a decoder busy for minutes.
const maxScans = 64

// Markers of ITU-T T.81, table B.1.
const (
	markSOF0, markSOF1, markSOF2 = 0xc0, 0xc1, 0xc2
	markRST0, markRST7           = 0xd0, 0xd7
	markEOI, markSOS             = 0xd9, 0xda
	markDHT, markDQT, markDRI    = 0xc4, 0xdb, 0xdd
	markAPP0, markAPP1           = 0xe0, 0xe1
	markAPP15, markCOM           = 0xef, 0xfe
)

// inspectJPEG walks the segments up to the frame header.
func inspectJPEG(data []byte) (Info, error) {
	info := Info{Format: JPEG, Orientation: 1}
	rest := data[len(jpegStart):]
	for {
		marker, after, ok := nextMarker(rest)
		if !ok {
			return info, truncated(JPEG)
		}
		rest = after
		if marker >= markRST0 && marker <= markRST7 {
			continue
		}
		if marker == markEOI || marker == markSOS {
			return info, errors.New("the JPEG has no frame header")
		}
		if len(rest) < 2 {
			return info, truncated(JPEG)
		}
		n := be16(rest)
		if n < 2 {
			return info, errors.New("the JPEG has a broken segment")
		}
		if n > len(rest) {
			return info, truncated(JPEG)
		}
		segment := rest[2:n]
		rest = rest[n:]
		switch {
		case marker == markSOF0 || marker == markSOF1 || marker == markSOF2:
			if scans := bytes.Count(rest, []byte{0xff, markSOS}); scans > maxScans {
				return info, fmt.Errorf("the JPEG has %d scans; more than %d are not decoded", scans, maxScans)
			}
			return info, info.takeFrame(segment, marker == markSOF2)
		case marker == markAPP1 && bytes.HasPrefix(segment, []byte(exifStart)):
			info.Orientation = orientation(segment[len(exifStart):])
		case marker == markDHT, marker == markDQT, marker == markDRI, marker == markCOM, marker >= markAPP0 && marker <= markAPP15:
		default:
			return info, fmt.Errorf("the JPEG is of a kind that is not supported (marker %#02x)", marker)
		}
	}
}

// nextMarker finds the next marker, past padding and stray bytes as libjpeg does.
func nextMarker(b []byte) (marker byte, rest []byte, ok bool) {
	for {
		at := bytes.IndexByte(b, 0xff)
		if at < 0 {
			return 0, nil, false
		}
		b = b[at:]
		for len(b) > 0 && b[0] == 0xff {
			b = b[1:]
		}
		if len(b) == 0 {
			return 0, nil, false
		}
		marker, b = b[0], b[1:]
		if marker != 0 {
			return marker, b, true
		}
	}
}

// takeFrame reads a frame header (T.81, section B.2.2).
func (i *Info) takeFrame(s []byte, progressive bool) error {
	if len(s) < 6 {
		return truncated(JPEG)
	}
	components := int(s[5])
	switch {
	case s[0] != 8:
		return fmt.Errorf("the JPEG has %d bits per sample; only 8 are supported", s[0])
	case components != 1 && components != 3 && components != 4:
		return fmt.Errorf("the JPEG has %d components; 1, 3 and 4 are supported", components)
	case len(s) != 6+3*components:
		return errors.New("the JPEG has a broken frame header")
	}
	i.Height, i.Width = be16(s[1:]), be16(s[3:])
	area := roundUp(i.Width) * roundUp(i.Height)
	// At worst no component is subsampled. A progressive frame keeps its coefficients,
	// four bytes each; one of four components is turned into another form at the end.
	i.memory = area * int64(components)
	if progressive {
		i.memory *= 5
	}
	if components == 4 {
		i.memory += 4 * area
	}
	return nil
}

// roundUp is a side in whole units of at most 32 pixels.
func roundUp(side int) int64 { return int64(side+31) &^ 31 }
