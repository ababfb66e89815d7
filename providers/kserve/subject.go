package kserve

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"

	"sluice/providers"
	"sluice/providers/kit/ask"
	"sluice/providers/kit/pixels"
	"sluice/streaming"
	"sluice/streaming/jsonscan"
)

// subject is one thing that a model is asked about.
type subject struct {
	param string // where it stands in the request, "" for the body itself
	image []byte // as it was sent
	text  string
	info  pixels.Info
	place pixels.Placement // of the image in the input, once it was written there
}

// question is what a request asks of a model: about what, and with which parameters.
type question struct {
	target
	req      *providers.Request
	model    *Model
	subjects []*subject
	params   map[string][]byte // JSON text, by OpenAI's names
	sampling []byte            // the same as one object
	progress *streaming.Progress
}

// addImage takes an image and looks at its header; nothing is decoded yet.
func (q *question) addImage(param, mediaType string, data []byte) error {
	if len(q.subjects) >= q.opt.MaxImages {
		return providers.Invalid(param, fmt.Sprintf("The model %q takes at most %d images in one request.", q.req.Model, q.opt.MaxImages))
	}
	s := &subject{param: param, image: data}
	err := pixels.CheckType(mediaType, data)
	if err == nil {
		s.info, err = q.opt.Images.Inspect(data)
	}
	if err != nil {
		return q.badImage(context.Background(), s, err)
	}
	width, height := s.info.Size()
	s.place = pixels.Placement{Width: width, Height: height, ScaleX: 1, ScaleY: 1}
	q.subjects = append(q.subjects, s)
	return nil
}

// addImageURL takes an image from a data URL.
func (q *question) addImageURL(image *ask.Image) error {
	mediaType, text, err := image.Data()
	if err != nil {
		return err
	}
	data, err := base64.StdEncoding.DecodeString(text)
	if err != nil {
		return providers.Invalid(image.Param, fmt.Sprintf("%s is no image that the model %q can be given: it holds no valid base64.", image.Param, image.Model))
	}
	return q.addImage(image.Param, mediaType, data)
}

// badImage says what is wrong with an image, where it stands, and for which model.
func (q *question) badImage(ctx context.Context, s *subject, err error) error {
	switch {
	case ctx.Err() != nil:
		return err
	case errors.Is(err, pixels.ErrBusy):
		return &providers.Error{Kind: providers.Overloaded, Target: q.name, Message: "Too many images wait to be decoded. Try again."}
	}
	where := s.param
	if where == "" {
		where = "The body"
	}
	return providers.Invalid(s.param, fmt.Sprintf("%s holds no image that the model %q can be given: %s.", where, q.req.Model, err))
}

// call makes the question about some subjects at once. Images are decoded when the
// inputs are filled.
func (q *question) call(ctx context.Context, about []*subject) *call {
	c := &call{model: q.target.model, version: q.model.Version, progress: q.progress}
	for i := range q.model.Inputs {
		if in, ok := q.input(ctx, &q.model.Inputs[i], about); ok {
			c.inputs = append(c.inputs, in)
		}
	}
	for i := range q.model.Outputs {
		o := &q.model.Outputs[i]
		c.outputs = append(c.outputs, output{o.Name, o.Classification})
	}
	return c
}

// input makes one input; ok is false when it is left out.
func (q *question) input(ctx context.Context, in *Input, about []*subject) (input, bool) {
	n := len(about)
	out := input{name: in.Name, datatype: in.Datatype, shape: append([]int64(nil), in.Shape...)}
	if out.shape[0] == -1 {
		out.shape[0] = int64(n)
	}
	switch in.Source {
	case FromImage:
		size := in.Picture.Size()
		out.size = n * size
		out.fill = func(dst []byte) error {
			for i, s := range about {
				var err error
				if s.place, err = q.opt.Images.Tensor(ctx, s.image, &in.Picture, dst[i*size:(i+1)*size]); err != nil {
					return q.badImage(ctx, s, err)
				}
			}
			return nil
		}
		return out, true
	case FromParam, FromValue, FromSampling:
		data := q.constant(in)
		if data == nil {
			return out, false
		}
		times := 1
		if in.Shape[0] == -1 {
			times = n
		}
		out.size = times * len(data)
		out.fill = func(dst []byte) error {
			for ; len(dst) > 0; dst = dst[len(data):] {
				copy(dst, data)
			}
			return nil
		}
		return out, true
	default:
		parts := make([]string, n)
		for i, s := range about {
			switch in.Source {
			case FromEncoded:
				parts[i] = string(s.image)
			case FromBase64:
				parts[i] = base64.StdEncoding.EncodeToString(s.image)
			default:
				parts[i] = s.text
			}
			out.size += 4 + len(parts[i])
		}
		out.fill = func(dst []byte) error {
			dst = dst[:0]
			for _, p := range parts {
				dst = appendString(dst, p)
			}
			return nil
		}
		return out, true
	}
}

// constant is what does not depend on the subject; nil leaves the input out.
func (q *question) constant(in *Input) []byte {
	text := []byte(in.Value)
	switch in.Source {
	case FromSampling:
		text = q.sampling
		if text == nil {
			text = []byte("{}")
		}
		text = jsonscan.AppendQuote(nil, string(text))
	case FromParam:
		if v := q.params[in.Param]; v != nil {
			text = v
		}
	}
	if len(text) == 0 {
		return nil
	}
	data, err := readData(in.Datatype, text)
	if err != nil {
		return nil // a parameter was held against the datatype when it was taken, a value by Check
	}
	return data
}

// ask asks about all subjects, as many at once as the model takes, and hands on each
// answer with those it is about.
func (q *question) ask(ctx context.Context, take func(a *answer, about []*subject) error) error {
	for rest := q.subjects; len(rest) > 0; {
		n := min(q.model.Batch, len(rest))
		about := rest[:n]
		rest = rest[n:]
		a, err := q.via.infer(ctx, q.call(ctx, about))
		if err != nil {
			return err
		}
		if err := take(a, about); err != nil {
			return err
		}
	}
	return nil
}

// unfit is the error for an answer that is not what the schema says.
func (q *question) unfit(tensor string, err error) error {
	return &providers.Error{Kind: providers.Protocol, Target: q.name,
		Message: fmt.Sprintf("the model's output %q is not what its schema declares: %s", tensor, err)}
}
