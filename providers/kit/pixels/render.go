package pixels

import (
	"encoding/binary"
	"image"
	"math"
)

// workspace bounds what render needs beside the decoded image, in bytes.
func (s *Spec) workspace(info Info) int64 {
	side := int64(max(s.Width, s.Height))
	longest := int64(max(info.Width, info.Height))
	rows := 2*longest/int64(max(min(s.Width, s.Height), 1)) + 3
	return 12*side*min(rows, longest+1) + 3*longest
}

// render writes an image into a tensor. The image is resampled as it is stored; turning
// it upright is only a matter of where its pixels are written.
func (s *Spec) render(img image.Image, info Info, dst []byte) Placement {
	width, height := info.Size()
	place, g := s.place(width, height)
	o := orient(info.Orientation, &place, g)
	r := newResampler(img,
		tapsFor(o.width, info.Width, o.originX, o.scaleX),
		tapsFor(o.height, info.Height, o.originY, o.scaleY))
	w := newWriter(s, dst)
	if g.width != s.Width || g.height != s.Height {
		w.fill(s.Pad)
	}
	for y := range o.height {
		row := r.row(y)
		x0, y0 := o.at(0, y)
		x1, y1 := o.at(1, y)
		w.run(row, g.x+x0, g.y+y0, x1-x0, y1-y0)
	}
	return place
}

// turn is a picture as it is stored: its size and place on the grid of the target, and
// where its pixels go.
type turn struct {
	orientation      int
	width, height    int // of the target, as the source is stored
	originX, originY float64
	scaleX, scaleY   float64
}

// orient undoes EXIF's orientation. The parts that Crop takes are centred, so mirroring
// does not move them; the second four orientations swap the axes.
func orient(orientation int, p *Placement, g grid) turn {
	t := turn{orientation, g.width, g.height, p.OriginX, p.OriginY, p.ScaleX, p.ScaleY}
	if orientation >= 5 {
		t.width, t.height = g.height, g.width
		t.originX, t.originY = p.OriginY, p.OriginX
		t.scaleX, t.scaleY = p.ScaleY, p.ScaleX
	}
	return t
}

// at says where a pixel of the stored target stands upright (EXIF 2.32, table 6: where
// row 0 and column 0 are seen).
func (t *turn) at(x, y int) (int, int) {
	right, bottom := t.width-1-x, t.height-1-y
	switch t.orientation {
	case 2:
		return right, y
	case 3:
		return right, bottom
	case 4:
		return x, bottom
	case 5:
		return y, x
	case 6:
		return bottom, x
	case 7:
		return bottom, right
	case 8:
		return y, right
	default:
		return x, y
	}
}

// writer normalises pixels and stores them.
type writer struct {
	dst      []byte
	size     int // bytes of an element
	width    int
	colours  Colours
	plane    int // elements from one channel of a pixel to the next
	pixel    int // elements from one pixel to the next
	channels int
	factor   [3]float32
	summand  [3]float32
	put      func(dst []byte, v float32)
}

func newWriter(s *Spec, dst []byte) *writer {
	w := &writer{dst: dst, size: s.Type.Bytes(), width: s.Width, colours: s.Colours, channels: s.Colours.Channels(), put: putters[s.Type]}
	w.plane, w.pixel = 1, w.channels
	if s.Planar {
		w.plane, w.pixel = s.Width*s.Height, 1
	}
	for c := range w.channels {
		w.factor[c], w.summand[c] = s.affine(c)
	}
	return w
}

// run writes a row of pixels from (x, y) on in steps of (dx, dy).
func (w *writer) run(row []float32, x, y, dx, dy int) {
	at, step := (y*w.width+x)*w.pixel, (dy*w.width+dx)*w.pixel
	for ; len(row) >= 3; row, at = row[3:], at+step {
		w.store(at, row[0], row[1], row[2])
	}
}

func (w *writer) store(at int, red, green, blue float32) {
	switch w.colours {
	case Grey:
		w.element(at, 0, 0.299*red+0.587*green+0.114*blue)
		return
	case BGR:
		red, blue = blue, red
	}
	w.element(at, 0, red)
	w.element(at+w.plane, 1, green)
	w.element(at+2*w.plane, 2, blue)
}

func (w *writer) element(at, channel int, v float32) {
	w.put(w.dst[at*w.size:], v*w.factor[channel]+w.summand[channel])
}

// fill gives the whole tensor one colour.
func (w *writer) fill(pad uint8) {
	v := float32(pad)
	for at, end := 0, len(w.dst)/w.size/w.channels; at < end; at++ {
		w.store(at*w.pixel, v, v, v)
	}
}

var putters = [...]func(dst []byte, v float32){
	Float32:  func(dst []byte, v float32) { binary.LittleEndian.PutUint32(dst, math.Float32bits(v)) },
	Float16:  func(dst []byte, v float32) { binary.LittleEndian.PutUint16(dst, Half(v)) },
	BFloat16: func(dst []byte, v float32) { binary.LittleEndian.PutUint16(dst, Brain(v)) },
	Uint8:    func(dst []byte, v float32) { dst[0] = uint8(min(max(v+0.5, 0), 255)) },
	Int8:     func(dst []byte, v float32) { dst[0] = uint8(int8(min(max(math.Floor(float64(v)+0.5), -128), 127))) },
}
