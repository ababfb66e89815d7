package kserve

import (
	"context"
	"fmt"

	"sluice/providers"
	"sluice/providers/kit/ask"
	"sluice/providers/kit/pixels"
	"sluice/streaming"
)

// maxTexts bounds the texts of one request, as OpenAI does.
const maxTexts = 2048

// embed answers a request for embeddings of texts, or of images in data URLs.
func (t target) embed(ctx context.Context, req *providers.Request, m *Model, yield yielder) error {
	o := m.output(AsEmbedding)
	if o == nil {
		return providers.Invalid("model", fmt.Sprintf("The model %q gives no embeddings: its schema declares no output of that kind.", req.Model))
	}
	q := t.newQuestion(req, m)
	asked := ask.Read(req, kind, t.opt.Drop)
	inBase64, err := q.readInputs(asked)
	if err != nil {
		return err
	}
	vectors, err := q.vectors(ctx, o)
	if err != nil {
		return err
	}
	u := streaming.UsageData{Estimated: true}
	if !m.takesImages() {
		u.Prompt = req.PromptEstimate()
	}
	u.Total = u.Prompt
	body, ok := ask.Embeddings(t.present(req), vectors, inBase64, &u)
	if !ok {
		return q.unfit(o.Name, fmt.Errorf("a vector holds what is no number"))
	}
	meta := t.meta(req, asked.Header())
	if !yield([]streaming.Event{meta, {Kind: streaming.Whole, Dialect: streaming.Opaque, Raw: body, Usage: &u}}, nil) {
		return errLeft
	}
	return nil
}

// readInputs takes what vectors are wanted of, and in which form.
func (q *question) readInputs(asked *ask.Params) (inBase64 bool, err error) {
	texts, err := asked.Inputs()
	if err != nil {
		return false, err
	}
	if len(texts) > maxTexts {
		return false, asked.Wrong("input", fmt.Sprintf("an array of at most %d texts", maxTexts))
	}
	for i, text := range texts {
		if err := q.addInput(fmt.Sprintf("input[%d]", i), text); err != nil {
			return false, err
		}
	}
	if inBase64, err = asked.Base64(); err != nil {
		return false, err
	}
	return inBase64, asked.Rest()
}

func (q *question) addInput(param, text string) error {
	switch {
	case q.model.takesImages():
		return q.addImageURL(&ask.Image{Param: param, URL: text})
	case pixels.IsImageURL(text):
		return providers.Invalid(param, fmt.Sprintf("%s: the model %q reads text and cannot be given an image.", param, q.req.Model))
	case text == "":
		return providers.Invalid(param, param+" is empty.")
	}
	q.subjects = append(q.subjects, &subject{param: param, text: text})
	return nil
}

// vectors asks for all embeddings, as JSON arrays.
func (q *question) vectors(ctx context.Context, o *Output) ([][]byte, error) {
	var all [][]byte
	err := q.ask(ctx, func(a *answer, about []*subject) error {
		for i := range about {
			t, err := partOf(a, o.Name, i, len(about))
			if err != nil {
				return q.unfit(o.Name, err)
			}
			v, err := o.vector(t)
			if err != nil {
				return q.unfit(o.Name, err)
			}
			all = append(all, appendVector(nil, v))
		}
		return nil
	})
	return all, err
}
