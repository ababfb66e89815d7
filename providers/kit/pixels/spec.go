package pixels

import (
	"errors"
	"fmt"
	"math"
)

// Type is the number format of a tensor's elements, little-endian.
type Type uint8

// The formats.
const (
	Float32 Type = iota
	Float16
	BFloat16
	Uint8
	Int8
)

// Bytes is the size of one element.
func (t Type) Bytes() int { return [...]int{4, 2, 2, 1, 1}[t] }

// float reports whether elements may be fractions.
func (t Type) float() bool { return t <= BFloat16 }

// Colours says which channels a tensor has, in which order.
type Colours uint8

// The orders. Grey is one channel, weighed as ITU-R BT.601 does.
const (
	RGB Colours = iota
	BGR
	Grey
)

// Channels is how many there are.
func (c Colours) Channels() int {
	if c == Grey {
		return 1
	}
	return 3
}

// Fit says how an image of another shape comes into the tensor's.
type Fit uint8

const (
	// Stretch ignores the ratio of the sides.
	Stretch Fit = iota
	// Crop takes the largest centred part of the tensor's shape.
	Crop
	// Letterbox shows all of it, centred, with bars of the colour Pad.
	Letterbox
)

// Spec is the picture that a model wants. A value is (pixel*Scale - Mean) / Std, with
// pixels from 0 to 255.
type Spec struct {
	Width, Height int
	Colours       Colours
	Planar        bool // channel after channel (CHW); else pixel after pixel (HWC)
	Type          Type
	Scale         float64   // 0: 1/255 for a type with fractions, else 1
	Mean, Std     []float64 // per channel in the tensor's order; empty: 0 and 1
	Fit           Fit
	CropRatio     float64 // of Crop: how much of the part is taken, 0 < r ≤ 1; 0: all
	Pad           uint8   // of Letterbox
}

// maxTensorSide bounds a side of a tensor in pixels.
const maxTensorSide = 8192

// Check says what is wrong with a spec.
func (s *Spec) Check() error {
	channels := s.Colours.Channels()
	switch {
	case s.Width < 1 || s.Height < 1 || s.Width > maxTensorSide || s.Height > maxTensorSide:
		return fmt.Errorf("width and height must be from 1 to %d", maxTensorSide)
	case len(s.Mean) != 0 && len(s.Mean) != channels:
		return fmt.Errorf("mean needs %d numbers, one for each channel", channels)
	case len(s.Std) != 0 && len(s.Std) != channels:
		return fmt.Errorf("std needs %d numbers, one for each channel", channels)
	case s.CropRatio < 0 || s.CropRatio > 1:
		return errors.New("the crop ratio must be above 0 and at most 1")
	}
	for _, v := range s.Std {
		if v == 0 || math.IsNaN(v) {
			return errors.New("std must not be 0")
		}
	}
	return nil
}

// Size is the bytes of one picture.
func (s *Spec) Size() int { return s.Width * s.Height * s.Colours.Channels() * s.Type.Bytes() }

// affine gives the factor and the summand that turn a pixel of a channel into a value.
func (s *Spec) affine(channel int) (factor, summand float32) {
	scale, mean, std := s.Scale, 0.0, 1.0
	if scale == 0 {
		scale = 1
		if s.Type.float() {
			scale = 1.0 / 255
		}
	}
	if len(s.Mean) > 0 {
		mean = s.Mean[channel]
	}
	if len(s.Std) > 0 {
		std = s.Std[channel]
	}
	return float32(scale / std), float32(-mean / std)
}

// Placement leads from the pixels of a model's input back to the upright image.
type Placement struct {
	Width, Height    int     // of the upright image
	OffsetX, OffsetY float64 // where the picture begins in the tensor (bars of Letterbox)
	OriginX, OriginY float64 // where its first pixel lies in the image (Crop)
	ScaleX, ScaleY   float64 // pixels of the image per pixel of the tensor
}

// ToImage turns a point in the tensor into one in the image, within its bounds.
func (p *Placement) ToImage(x, y float64) (float64, float64) {
	return clamp(p.OriginX+(x-p.OffsetX)*p.ScaleX, p.Width), clamp(p.OriginY+(y-p.OffsetY)*p.ScaleY, p.Height)
}

func clamp(v float64, high int) float64 { return min(max(v, 0), float64(high)) }

// grid is the part of the tensor that the picture fills.
type grid struct{ x, y, width, height int }

// place says where an upright image of a size goes.
func (s *Spec) place(width, height int) (Placement, grid) {
	w, h := float64(width), float64(height)
	p := Placement{Width: width, Height: height, ScaleX: w / float64(s.Width), ScaleY: h / float64(s.Height)}
	g := grid{width: s.Width, height: s.Height}
	switch s.Fit {
	case Crop:
		scale := min(p.ScaleX, p.ScaleY)
		if s.CropRatio > 0 {
			scale *= s.CropRatio
		}
		p.ScaleX, p.ScaleY = scale, scale
		p.OriginX, p.OriginY = (w-scale*float64(s.Width))/2, (h-scale*float64(s.Height))/2
	case Letterbox:
		scale := max(p.ScaleX, p.ScaleY)
		g.width = min(max(int(math.Round(w/scale)), 1), s.Width)
		g.height = min(max(int(math.Round(h/scale)), 1), s.Height)
		g.x, g.y = (s.Width-g.width)/2, (s.Height-g.height)/2
		p.OffsetX, p.OffsetY = float64(g.x), float64(g.y)
		p.ScaleX, p.ScaleY = w/float64(g.width), h/float64(g.height)
	}
	return p, g
}
