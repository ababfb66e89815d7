// Package pixels knows how an encoded image becomes the input of a model: what its
// header says before anything is decoded, which bounds hold, how it is turned
// upright, resized and normalised, and how many are decoded at once.
package pixels

import (
	"bytes"
	"errors"
	"fmt"
)

// Format is an encoding of images.
type Format uint8

const (
	// JPEG is ITU-T T.81, baseline or progressive.
	JPEG Format = iota + 1
	// PNG is the W3C's Portable Network Graphics.
	PNG
	// WebP is RFC 9649, without animation.
	WebP
)

// String is the name for messages.
func (f Format) String() string {
	return [...]string{"unknown", "JPEG", "PNG", "WebP"}[f]
}

// FormatOf finds the format that a media type names. It takes image/jpg too, which
// is not registered and common.
func FormatOf(mediaType string) (Format, bool) {
	switch mediaType {
	case "image/jpeg", "image/jpg":
		return JPEG, true
	case "image/png":
		return PNG, true
	case "image/webp":
		return WebP, true
	default:
		return 0, false
	}
}

// Info is what an image says of itself before a pixel of it is decoded.
type Info struct {
	Format        Format
	Width, Height int // as stored
	// Orientation is EXIF's, 1 to 8; 1 where the image does not say.
	Orientation int
	// memory bounds the bytes that decoding holds.
	memory int64
}

// Size is the width and height of the image when it is upright.
func (i Info) Size() (width, height int) {
	if i.Orientation >= 5 {
		return i.Height, i.Width
	}
	return i.Width, i.Height
}

// maxSide bounds a side in pixels, so that one row of an image is never large. It is
// above WebP's limit of 16,383 and about what cameras and scanners give.
const maxSide = 1 << 15

// Inspect reads the header of an encoded image. It allocates nothing that grows with
// what the header claims. The error says what is wrong with the data, for people.
func Inspect(data []byte) (Info, error) {
	info, err := inspect(data)
	switch {
	case err != nil:
		return Info{}, err
	case info.Width < 1 || info.Height < 1:
		return Info{}, fmt.Errorf("the %s has no pixels", info.Format)
	case info.Width > maxSide || info.Height > maxSide:
		return Info{}, fmt.Errorf("the %s is %d x %d pixels; no side may be longer than %d", info.Format, info.Width, info.Height, maxSide)
	default:
		return info, nil
	}
}

func inspect(data []byte) (Info, error) {
	switch {
	case bytes.HasPrefix(data, []byte(jpegStart)):
		return inspectJPEG(data)
	case bytes.HasPrefix(data, []byte(pngStart)):
		return inspectPNG(data)
	case len(data) >= 12 && string(data[:4]) == "RIFF" && string(data[8:12]) == "WEBP":
		return inspectWebP(data)
	case len(data) == 0:
		return Info{}, errors.New("there is no data")
	default:
		return Info{}, fmt.Errorf("the data is no JPEG, PNG or WebP%s", guess(data))
	}
}

// guess names what the data looks like instead.
func guess(data []byte) string {
	for _, k := range [...]struct{ magic, name string }{
		{"GIF8", "a GIF"}, {"BM", "a BMP"}, {"II*\x00", "a TIFF"}, {"MM\x00*", "a TIFF"}, {"%PDF", "a PDF"},
		{"<svg", "an SVG"}, {"<?xml", "XML"}, {"<!DOC", "HTML"}, {"<html", "HTML"}, {"\x00\x00\x01\x00", "an icon"},
	} {
		if bytes.HasPrefix(data, []byte(k.magic)) {
			return " but " + k.name
		}
	}
	if len(data) >= 12 && string(data[4:8]) == "ftyp" {
		return " but an AVIF, HEIC or video"
	}
	return ""
}

func truncated(f Format) error { return fmt.Errorf("the %s is truncated", f) }

func be16(b []byte) int { return int(b[0])<<8 | int(b[1]) }

func be32(b []byte) uint32 {
	return uint32(b[0])<<24 | uint32(b[1])<<16 | uint32(b[2])<<8 | uint32(b[3])
}

func le32(b []byte) uint32 {
	return uint32(b[3])<<24 | uint32(b[2])<<16 | uint32(b[1])<<8 | uint32(b[0])
}
