package kserve

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"

	"sluice/streaming/jsonscan"
)

// appendResult adds what a model found about one subject as a JSON object. The subject
// is the i-th of n in the answer and has a number in the request.
func (q *question) appendResult(dst []byte, a *answer, i, n, number int, s *subject) ([]byte, error) {
	dst = append(dst, `{"index":`...)
	dst = strconv.AppendInt(dst, int64(number), 10)
	if s.image != nil {
		dst = fmt.Appendf(dst, `,"width":%d,"height":%d`, s.place.Width, s.place.Height)
	}
	for j := range q.model.Outputs {
		o := &q.model.Outputs[j]
		if o.Meaning == AsPart {
			continue
		}
		t, err := partOf(a, o.Name, i, n)
		if err != nil {
			return dst, q.unfit(o.Name, err)
		}
		dst = append(dst, ',')
		dst = jsonscan.AppendQuote(dst, o.Key)
		dst = append(dst, ':')
		if dst, err = q.appendMeaning(dst, o, t, a, i, n, s); err != nil {
			return dst, q.unfit(o.Name, err)
		}
	}
	return append(dst, '}'), nil
}

// partOf finds a tensor and takes a subject's part of it.
func partOf(a *answer, name string, i, n int) (*tensor, error) {
	t := a.find(name)
	if t == nil {
		return nil, errors.New("it did not come")
	}
	part, err := t.item(i, n)
	return &part, err
}

func (q *question) appendMeaning(dst []byte, o *Output, t *tensor, a *answer, i, n int, s *subject) ([]byte, error) {
	switch o.Meaning {
	case AsClasses:
		return o.appendClasses(dst, t)
	case AsBoxes:
		parts := map[string]*tensor{}
		for _, name := range []string{o.Scores, o.Classes, o.Count} {
			if name == "" {
				continue
			}
			part, err := partOf(a, name, i, n)
			if err != nil {
				return dst, fmt.Errorf("%q, which it needs: %w", name, err)
			}
			parts[name] = part
		}
		return q.appendBoxes(dst, o, t, parts, s)
	case AsEmbedding:
		v, err := o.vector(t)
		if err != nil {
			return dst, err
		}
		return appendVector(dst, v), nil
	case AsTensor:
		return appendTensor(dst, t), nil
	default:
		data := appendData(nil, t)
		if count, err := elements(t.shape); err == nil && count == 1 {
			data = data[1 : len(data)-1]
		}
		return append(dst, data...), nil
	}
}

// class is one class with its score.
type class struct {
	index int
	label string
	score float64
}

// appendClasses adds the best classes, the best first.
func (o *Output) appendClasses(dst []byte, t *tensor) ([]byte, error) {
	all, err := o.classes(t)
	if err != nil {
		return dst, err
	}
	slices.SortStableFunc(all, func(a, b class) int { return descending(a.score, b.score) })
	if o.Top > 0 && len(all) > o.Top {
		all = all[:o.Top]
	}
	dst = append(dst, '[')
	sep := false
	for _, c := range all {
		if c.score < o.Threshold {
			continue
		}
		if sep {
			dst = append(dst, ',')
		}
		sep = true
		dst = appendClass(append(dst, '{'), c)
		dst = append(dst, '}')
	}
	return append(dst, ']'), nil
}

// descending compares two scores so that the higher comes first; no number comes last.
func descending(a, b float64) int {
	switch {
	case a > b || math.IsNaN(b) && !math.IsNaN(a):
		return -1
	case a < b || math.IsNaN(a) && !math.IsNaN(b):
		return 1
	default:
		return 0
	}
}

func appendClass(dst []byte, c class) []byte {
	dst = append(dst, `"label":`...)
	dst = jsonscan.AppendQuote(dst, c.label)
	dst = append(dst, `,"index":`...)
	dst = strconv.AppendInt(dst, int64(c.index), 10)
	dst = append(dst, `,"score":`...)
	return appendNumber(dst, c.score, 32)
}

// classes reads scores by class, or the strings of the classification extension.
func (o *Output) classes(t *tensor) ([]class, error) {
	if t.datatype == bytesType {
		return o.classified(t)
	}
	all := make([]class, t.len())
	for i := range all {
		all[i] = class{i, o.label(i), t.at(i)}
	}
	switch o.Activation {
	case "softmax":
		softmax(all)
	case "sigmoid":
		for i := range all {
			all[i].score = sigmoid(all[i].score)
		}
	}
	return all, nil
}

func sigmoid(x float64) float64 { return 1 / (1 + math.Exp(-x)) }

func softmax(all []class) {
	most, sum := math.Inf(-1), 0.0
	for _, c := range all {
		most = max(most, c.score)
	}
	for i := range all {
		all[i].score = math.Exp(all[i].score - most)
		sum += all[i].score
	}
	for i := range all {
		all[i].score /= sum
	}
}

// classified reads strings of the form value:index or value:index:label.
func (o *Output) classified(t *tensor) ([]class, error) {
	var all []class
	for _, s := range t.strings() {
		value, rest, ok := cutColon(string(s))
		index, label, labelled := cutColon(rest)
		score, err1 := strconv.ParseFloat(value, 64)
		i, err2 := strconv.Atoi(index)
		if !ok || err1 != nil || err2 != nil {
			return nil, fmt.Errorf("%.60q is not of the form value:index:label", s)
		}
		if !labelled {
			label = o.label(i)
		}
		all = append(all, class{i, label, score})
	}
	return all, nil
}

func cutColon(s string) (before, after string, found bool) {
	for i := range len(s) {
		if s[i] == ':' {
			return s[:i], s[i+1:], true
		}
	}
	return s, "", false
}

// label names a class; one without a label is its number.
func (o *Output) label(i int) string {
	if i >= 0 && i < len(o.Labels) {
		return o.Labels[i]
	}
	return strconv.Itoa(i)
}

// vector makes one vector of a tensor: the last axis is its length, and what stands
// before it are several, for parts of a text, which are pooled.
func (o *Output) vector(t *tensor) ([]float32, error) {
	if !t.numeric() || t.len() == 0 || len(t.shape) == 0 {
		return nil, errors.New("an embedding must be numbers")
	}
	size := int(t.shape[len(t.shape)-1])
	rows := t.len() / size
	if rows > 1 && (o.Pooling == "" || o.Pooling == "none") {
		return nil, fmt.Errorf("its shape %v holds %d vectors; set pooling to make one of them", t.shape, rows)
	}
	if o.Pooling == "first" {
		rows = 1
	}
	wide := make([]float64, size)
	for i := range rows * size {
		wide[i%size] += t.at(i)
	}
	length := 0.0
	for i := range wide {
		wide[i] /= float64(rows)
		length += wide[i] * wide[i]
	}
	scale := 1.0
	if o.Normalize && length > 0 {
		scale = 1 / math.Sqrt(length)
	}
	out := make([]float32, size)
	for i, v := range wide {
		out[i] = float32(v * scale)
	}
	return out, nil
}

func appendVector(dst []byte, v []float32) []byte {
	dst = append(dst, '[')
	for i, x := range v {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = appendNumber(dst, float64(x), 32)
	}
	return append(dst, ']')
}
