package pixels

import (
	"image"
	"math"
)

// taps are the pixels of a source axis that make up one pixel of the target: weights
// for the run that begins at from.
type taps struct {
	from    int
	weights []float32
}

// tapsFor makes the taps of one axis: n target pixels of scale source pixels each, the
// first one beginning at origin, over a source of size pixels. The filter is a
// triangle as wide as a target pixel, and at least as a source pixel: bilinear
// interpolation that does not alias when an image shrinks (what Pillow and torchvision
// call bilinear).
func tapsFor(n, size int, origin, scale float64) []taps {
	width := max(scale, 1)
	all := make([]taps, n)
	for i := range all {
		centre := origin + (float64(i)+0.5)*scale
		from := max(int(math.Floor(centre-width+0.5)), 0)
		to := min(int(math.Floor(centre+width+0.5)), size)
		from = min(from, size-1)
		to = max(to, from+1)
		weights := make([]float32, to-from)
		sum := 0.0
		for j := range weights {
			w := max(1-math.Abs(float64(from+j)+0.5-centre)/width, 0)
			weights[j] = float32(w)
			sum += w
		}
		if sum == 0 { // a target pixel outside the image, by rounding
			weights[0], sum = 1, 1
		}
		for j := range weights {
			weights[j] = float32(float64(weights[j]) / sum)
		}
		all[i] = taps{from, weights}
	}
	return all
}

// window is the largest number of taps of an axis.
func window(all []taps) int {
	most := 0
	for i := range all {
		most = max(most, len(all[i].weights))
	}
	return most
}

// resampler gives rows of the target one after another. Rows of the source are read
// once each, and only as many are kept, resized to the target's width, as one row of
// the target needs.
type resampler struct {
	read       rows
	horizontal []taps
	vertical   []taps
	source     []byte      // one row of the source
	kept       [][]float32 // row y at y % len(kept)
	next       int         // first row that is not yet read
	out        []float32
}

func newResampler(img image.Image, horizontal, vertical []taps) *resampler {
	r := &resampler{read: rowsOf(img), horizontal: horizontal, vertical: vertical}
	r.source = make([]byte, 3*img.Bounds().Dx())
	r.kept = make([][]float32, window(vertical))
	row := 3 * len(horizontal)
	pixels := make([]float32, row*(len(r.kept)+1))
	for i := range r.kept {
		r.kept[i] = pixels[i*row:][:row]
	}
	r.out = pixels[len(r.kept)*row:]
	return r
}

// row returns row y of the target, red, green and blue from 0 to 255. It is valid until
// the next call; y must not go down.
func (r *resampler) row(y int) []float32 {
	t := &r.vertical[y]
	r.next = max(r.next, t.from)
	for ; r.next < t.from+len(t.weights); r.next++ {
		r.read(r.source, r.next)
		shrink(r.kept[r.next%len(r.kept)], r.source, r.horizontal)
	}
	clear(r.out)
	for i, w := range t.weights {
		for x, v := range r.kept[(t.from+i)%len(r.kept)] {
			r.out[x] += w * v
		}
	}
	return r.out
}

// shrink resizes one row.
func shrink(dst []float32, src []byte, all []taps) {
	for x := range all {
		t := &all[x]
		var red, green, blue float32
		part := src[3*t.from:][:3*len(t.weights)]
		for i, w := range t.weights {
			p := part[3*i : 3*i+3 : 3*i+3]
			red += w * float32(p[0])
			green += w * float32(p[1])
			blue += w * float32(p[2])
		}
		dst[3*x], dst[3*x+1], dst[3*x+2] = red, green, blue
	}
}
