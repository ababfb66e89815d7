package kserve

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
)

// found is one object: its class and its box, x1, y1, x2, y2 in pixels of the image as
// people see it.
type found struct {
	class
	box [4]float64
}

// maxRows bounds the rows of boxes that are read, maxFound those that are compared with
// each other.
const (
	maxRows  = 1 << 20
	maxFound = 4096
)

// appendBoxes adds the objects, the surest first.
func (q *question) appendBoxes(dst []byte, o *Output, t *tensor, parts map[string]*tensor, s *subject) ([]byte, error) {
	r, err := o.rows(t, parts)
	if err != nil {
		return dst, err
	}
	width, height := q.inputSize(s)
	var all []found
	for i := range r.n {
		c := r.class(i)
		if o.Activation == "sigmoid" {
			c.score = sigmoid(c.score)
		}
		if !(c.score >= o.Threshold) { // no number is not told either
			continue
		}
		c.label = o.label(c.index)
		all = append(all, found{c, o.place(r.box(i), width, height, s)})
	}
	all = o.best(all)
	dst = append(dst, '[')
	for i, f := range all {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = appendClass(append(dst, '{'), f.class)
		dst = append(dst, `,"box":[`...)
		for j, v := range f.box {
			if j > 0 {
				dst = append(dst, ',')
			}
			dst = appendCoordinate(dst, v)
		}
		dst = append(dst, "]}"...)
	}
	return append(dst, ']'), nil
}

// appendCoordinate adds a coordinate to a hundredth of a pixel.
func appendCoordinate(dst []byte, v float64) []byte {
	if math.IsNaN(v) {
		return append(dst, "null"...)
	}
	return strconv.AppendFloat(dst, math.Round(v*100)/100, 'f', -1, 64)
}

// inputSize is what coordinates of a box refer to: the picture that the model was
// given, or the image itself where the server decodes it.
func (q *question) inputSize(s *subject) (width, height float64) {
	for i := range q.model.Inputs {
		if in := &q.model.Inputs[i]; in.Source == FromImage {
			return float64(in.Picture.Width), float64(in.Picture.Height)
		}
	}
	return float64(s.place.Width), float64(s.place.Height)
}

// place turns the four numbers of a box into corners in the image.
func (o *Output) place(b [4]float64, width, height float64, s *subject) (out [4]float64) {
	switch o.Box {
	case "yxyx":
		b = [4]float64{b[1], b[0], b[3], b[2]}
	case "xywh":
		b[2], b[3] = b[0]+b[2], b[1]+b[3]
	case "cxcywh":
		w, h := b[2]/2, b[3]/2
		b = [4]float64{b[0] - w, b[1] - h, b[0] + w, b[1] + h}
	}
	if o.Normalized {
		b[0], b[1], b[2], b[3] = b[0]*width, b[1]*height, b[2]*width, b[3]*height
	}
	out[0], out[1] = s.place.ToImage(b[0], b[1])
	out[2], out[3] = s.place.ToImage(b[2], b[3])
	return out
}

// best sorts by score, drops what overlaps, and keeps the first ones.
func (o *Output) best(all []found) []found {
	slices.SortStableFunc(all, func(a, b found) int { return descending(a.score, b.score) })
	if o.NMS > 0 {
		all = suppress(all[:min(len(all), maxFound)], o.NMS)
	}
	if o.Top > 0 && len(all) > o.Top {
		all = all[:o.Top]
	}
	return all
}

// suppress leaves out boxes that overlap a surer one of the same class (non-maximum
// suppression). all is sorted.
func suppress(all []found, most float64) []found {
	var kept []found
	for _, f := range all {
		if !slices.ContainsFunc(kept, func(k found) bool { return k.index == f.index && overlap(&k.box, &f.box) > most }) {
			kept = append(kept, f)
		}
	}
	return kept
}

// overlap is the intersection of two boxes over their union.
func overlap(a, b *[4]float64) float64 {
	width := min(a[2], b[2]) - max(a[0], b[0])
	height := min(a[3], b[3]) - max(a[1], b[1])
	if width <= 0 || height <= 0 {
		return 0
	}
	both := width * height
	return both / (area(a) + area(b) - both)
}

func area(b *[4]float64) float64 { return (b[2] - b[0]) * (b[3] - b[1]) }

// rows reads a tensor of boxes row by row.
type rows struct {
	*Output
	n, width        int // rows, and numbers in each
	boxes           *tensor
	scores, numbers *tensor // of rows that hold a box only
}

// rows finds the axes of a tensor of boxes. Axes of one before the last two are dropped.
func (o *Output) rows(t *tensor, parts map[string]*tensor) (*rows, error) {
	shape := t.shape
	for len(shape) > 2 && shape[0] == 1 {
		shape = shape[1:]
	}
	if len(shape) != 2 || !t.numeric() {
		return nil, fmt.Errorf("boxes need rows of numbers, and its shape is %v of %s", t.shape, t.datatype)
	}
	r := &rows{Output: o, n: int(shape[0]), width: int(shape[1]), boxes: t}
	if o.Transposed {
		r.n, r.width = r.width, r.n
	}
	if least := map[string]int{"box": 4, "box,score,class": 6, "box,classes": 5, "box,object,classes": 6}[o.Rows]; r.width < least {
		return nil, fmt.Errorf("rows of %q have at least %d numbers, and its shape is %v", o.Rows, least, t.shape)
	}
	if r.n > maxRows {
		return nil, fmt.Errorf("it has %d rows; more than %d are not read", r.n, maxRows)
	}
	return r, r.join(parts)
}

// join adds the tensors that go with rows of boxes.
func (r *rows) join(parts map[string]*tensor) error {
	if count := parts[r.Count]; r.Count != "" {
		if !count.numeric() || count.len() != 1 || !(count.at(0) >= 0) {
			return fmt.Errorf("%q is no count", r.Count)
		}
		r.n = int(min(count.at(0), float64(r.n)))
	}
	if r.Rows != "box" {
		return nil
	}
	r.scores, r.numbers = parts[r.Scores], parts[r.Classes]
	if !r.scores.numeric() || r.n > 0 && r.scores.len() < r.n {
		return fmt.Errorf("%q has not one score for each box", r.Scores)
	}
	if r.numbers != nil && (!r.numbers.numeric() || r.numbers.len() < r.n) {
		return errors.New("there is not one class for each box")
	}
	return nil
}

// number is one number of a row.
func (r *rows) number(row, column int) float64 {
	if r.Transposed {
		total := r.boxes.len() / r.width
		return r.boxes.at(column*total + row)
	}
	return r.boxes.at(row*r.width + column)
}

func (r *rows) box(i int) [4]float64 {
	return [4]float64{r.number(i, 0), r.number(i, 1), r.number(i, 2), r.number(i, 3)}
}

// class finds the class of a row and its score.
func (r *rows) class(i int) class {
	switch r.Rows {
	case "box,score,class":
		return class{index: int(r.number(i, 5)), score: r.number(i, 4)}
	case "box,classes":
		return surest(r.width-4, func(c int) float64 { return r.number(i, 4+c) })
	case "box,object,classes":
		c := surest(r.width-5, func(c int) float64 { return r.number(i, 5+c) })
		c.score *= r.number(i, 4)
		return c
	}
	if r.numbers != nil {
		return class{index: int(r.numbers.at(i)), score: r.scores.at(i)}
	}
	each := r.scores.len() / (r.boxes.len() / r.width)
	return surest(each, func(c int) float64 { return r.scores.at(i*each + c) })
}

// surest is the class with the highest of n scores.
func surest(n int, score func(int) float64) class {
	best := class{score: math.Inf(-1)}
	for i := range n {
		if s := score(i); s > best.score {
			best.index, best.score = i, s
		}
	}
	return best
}
