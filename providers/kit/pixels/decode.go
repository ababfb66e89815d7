package pixels

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"image"
	"image/color"
	"image/jpeg"
	"image/png"
	"io"

	"golang.org/x/image/webp"
)

// decode runs the decoder of the format. It ends with the context: decoders know none,
// but they read.
func decode(ctx context.Context, data []byte, info Info) (image.Image, error) {
	src := &source{ctx: ctx, r: bytes.NewReader(data)}
	var img image.Image
	var err error
	switch info.Format {
	case JPEG:
		img, err = jpeg.Decode(src)
	case PNG:
		img, err = png.Decode(src)
	case WebP:
		img, err = webp.Decode(src)
	}
	switch {
	case ctx.Err() != nil:
		return nil, context.Cause(ctx)
	case errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF):
		return nil, truncated(info.Format)
	case err != nil:
		return nil, fmt.Errorf("the %s is truncated or damaged (%w)", info.Format, err)
	}
	if b := img.Bounds(); b.Dx() != info.Width || b.Dy() != info.Height {
		return nil, fmt.Errorf("the %s is not as large as its header says", info.Format)
	}
	return img, nil
}

// source fails when its context has ended.
type source struct {
	ctx context.Context
	r   *bytes.Reader
}

func (s *source) Read(p []byte) (int, error) {
	if err := s.ctx.Err(); err != nil {
		return 0, err
	}
	return s.r.Read(p)
}

// rows reads rows of an image as red, green and blue, one byte each. Transparency is
// dropped, as what models are trained with does (Pillow's convert("RGB")).
type rows func(dst []byte, y int)

func rowsOf(img image.Image) rows {
	switch m := img.(type) {
	case *image.YCbCr:
		return ycbcrRows(m)
	case *image.NYCbCrA:
		return ycbcrRows(&m.YCbCr)
	case *image.Gray:
		return func(dst []byte, y int) {
			for x, v := range m.Pix[y*m.Stride:][:m.Rect.Dx()] {
				dst[3*x], dst[3*x+1], dst[3*x+2] = v, v, v
			}
		}
	case *image.NRGBA:
		return func(dst []byte, y int) { dropAlpha(dst, m.Pix[y*m.Stride:]) }
	case *image.RGBA: // decoders make it for opaque pictures only
		return func(dst []byte, y int) { dropAlpha(dst, m.Pix[y*m.Stride:]) }
	case *image.Paletted:
		return palettedRows(m)
	case *image.CMYK:
		return func(dst []byte, y int) {
			for x, p := 0, m.Pix[y*m.Stride:]; x < m.Rect.Dx(); x, p = x+1, p[4:] {
				dst[3*x], dst[3*x+1], dst[3*x+2] = color.CMYKToRGB(p[0], p[1], p[2], p[3])
			}
		}
	default:
		return otherRows(img)
	}
}

func dropAlpha(dst, pix []byte) {
	for i, j := 0, 0; i < len(dst); i, j = i+3, j+4 {
		s := pix[j : j+4 : j+4]
		dst[i], dst[i+1], dst[i+2] = s[0], s[1], s[2]
	}
}

// ycbcrRows serves decoded pictures, whose rectangle begins at 0,0.
func ycbcrRows(m *image.YCbCr) rows {
	shift := 0
	switch m.SubsampleRatio {
	case image.YCbCrSubsampleRatio422, image.YCbCrSubsampleRatio420:
		shift = 1
	case image.YCbCrSubsampleRatio411, image.YCbCrSubsampleRatio410:
		shift = 2
	}
	return func(dst []byte, y int) {
		luma := m.Y[y*m.YStride:]
		at := m.COffset(0, y)
		cb, cr := m.Cb[at:], m.Cr[at:]
		for x := range m.Rect.Dx() {
			c := x >> shift
			dst[3*x], dst[3*x+1], dst[3*x+2] = color.YCbCrToRGB(luma[x], cb[c], cr[c])
		}
	}
}

func palettedRows(m *image.Paletted) rows {
	var table [256][3]byte
	for i, c := range m.Palette[:min(len(m.Palette), 256)] {
		n := color.NRGBAModel.Convert(c).(color.NRGBA)
		table[i] = [3]byte{n.R, n.G, n.B}
	}
	return func(dst []byte, y int) {
		for x, i := range m.Pix[y*m.Stride:][:m.Rect.Dx()] {
			copy(dst[3*x:3*x+3], table[i][:])
		}
	}
}

func otherRows(img image.Image) rows {
	box := img.Bounds()
	return func(dst []byte, y int) {
		for x := range box.Dx() {
			n := color.NRGBAModel.Convert(img.At(box.Min.X+x, box.Min.Y+y)).(color.NRGBA)
			dst[3*x], dst[3*x+1], dst[3*x+2] = n.R, n.G, n.B
		}
	}
}
