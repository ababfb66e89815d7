package kserve

import (
	"context"
	"fmt"

	"sluice/providers"
	"sluice/providers/kit/ask"
	"sluice/streaming"
	"sluice/streaming/jsonscan"
)

// newQuestion begins a question without subjects.
func (t target) newQuestion(req *providers.Request, m *Model) *question {
	return &question{target: t, req: req, model: m}
}

// look answers a chat or completions request with what the model found, as JSON text.
func (t target) look(ctx context.Context, req *providers.Request, m *Model, yield yielder) error {
	q := t.newQuestion(req, m)
	asked := ask.Read(req, kind, t.opt.Drop)
	if err := q.readSubjects(asked); err != nil {
		return err
	}
	if err := q.lookParams(asked); err != nil {
		return err
	}
	text, err := q.results(ctx)
	if err != nil {
		return err
	}
	events := []streaming.Event{t.meta(req, asked.Header()), {Kind: streaming.Text, Text: string(text)}, {Kind: streaming.Stop, Stop: "stop"}}
	if !yield(events, nil) {
		return errLeft
	}
	return nil
}

// lookParams takes what cannot change the answer of a model that computes: how a text
// would be sampled, and the wish for JSON, which it gets anyway.
func (q *question) lookParams(asked *ask.Params) error {
	for _, name := range samplingParams {
		asked.Take(name)
	}
	if _, _, err := asked.MaxTokens(); err != nil {
		return err
	}
	asked.Take("stop")
	form, _, err := asked.Format()
	if err != nil {
		return err
	}
	if form == "json_schema" {
		if err := asked.Cannot("response_format", "answers in a form of its own"); err != nil {
			return err
		}
	}
	return asked.Rest()
}

// readSubjects finds what the request is about: the images of the newest message that
// has some, or the text of the newest message of the user.
func (q *question) readSubjects(asked *ask.Params) error {
	if q.req.Op == providers.Completions {
		prompt, err := onePrompt(asked)
		if err != nil {
			return err
		}
		if q.model.takesImages() {
			return asked.Wrong("messages", fmt.Sprintf("sent to /v1/chat/completions, with an image: the model %q is asked about images", q.req.Model))
		}
		q.subjects = []*subject{{param: "prompt", text: prompt}}
		return nil
	}
	messages, err := asked.Messages()
	if err != nil {
		return err
	}
	return q.fromMessages(asked, messages)
}

// onePrompt takes the prompt of a completions request.
func onePrompt(asked *ask.Params) (string, error) {
	prompts, err := asked.Prompts()
	switch {
	case err != nil:
		return "", err
	case len(prompts) > 1:
		return "", asked.CannotRead("prompt", "several prompts at once")
	case prompts[0].Tokens != nil:
		return "", asked.CannotRead("prompt", "token ids")
	}
	return prompts[0].Text, nil
}

func (q *question) fromMessages(asked *ask.Params, messages []ask.Message) error {
	text, param := "", ""
	var images []*ask.Image
	for i := len(messages) - 1; i >= 0; i-- {
		m := &messages[i]
		if found := m.Images(); len(found) > 0 && images == nil {
			images = found
		}
		if m.Role == "user" && param == "" {
			text, param = m.Text(), m.Param+".content"
		}
	}
	if param == "" {
		return asked.Wrong("messages", "a conversation with a message of the user")
	}
	switch {
	case !q.model.takesImages() && len(images) > 0:
		return asked.CannotRead(images[0].Param, "an image")
	case !q.model.takesImages():
		q.subjects = []*subject{{param: param, text: text}}
		return nil
	case len(images) == 0:
		return providers.Invalid("messages", fmt.Sprintf(`The model %q is asked about an image: send one as a part of a message, {"type":"image_url","image_url":{"url":"data:image/jpeg;base64,..."}}.`, q.req.Model))
	}
	for _, image := range images {
		if err := q.addImageURL(image); err != nil {
			return err
		}
	}
	for _, s := range q.subjects {
		s.text = text
	}
	return nil
}

// results asks about all subjects and makes one JSON object of what was found.
func (q *question) results(ctx context.Context) ([]byte, error) {
	out := []byte(`{"model":`)
	out = jsonscan.AppendQuote(out, q.present(q.req))
	out = append(out, `,"results":[`...)
	number := 0
	err := q.ask(ctx, func(a *answer, about []*subject) error {
		for i, s := range about {
			if number > 0 {
				out = append(out, ',')
			}
			var err error
			if out, err = q.appendResult(out, a, i, len(about), number, s); err != nil {
				return err
			}
			if len(out) > q.opt.MaxAnswer {
				return &providers.Error{Kind: providers.EventTooLarge, Target: q.name, Message: fmt.Sprintf("the results are longer than the limit of %d bytes", q.opt.MaxAnswer)}
			}
			number++
		}
		return nil
	})
	return append(out, "]}"...), err
}
