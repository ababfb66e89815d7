package gemini

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"sluice/providers"
	"sluice/providers/kit/ask"
	"sluice/providers/upstream"
	"sluice/streaming"
)

// maxBatch is how many texts the API embeds in one call; more are asked for in several.
const maxBatch = 100

// embedding is one request for an embedding.
type embedding struct {
	Model   string  `json:"model"`
	Content content `json:"content"`
	Task    string  `json:"taskType,omitempty"`
	Size    int64   `json:"outputDimensionality,omitempty"`
}

// embed answers with one complete body. The API tells no usage: it is estimated.
func (t target) embed(ctx context.Context, req *providers.Request, yield yielder) {
	q := ask.Read(req, kind, t.opt.Drop)
	list, inBase64, err := t.embeddings(q)
	if err != nil {
		yield(nil, err)
		return
	}
	var vectors [][]byte
	for some := range slices.Chunk(list, maxBatch) {
		got, err := t.embedSome(ctx, some)
		if err != nil {
			yield(nil, err)
			return
		}
		vectors = append(vectors, got...)
	}
	model := t.model
	if req.PresentAs != "" {
		model = req.PresentAs
	}
	u := &streaming.UsageData{Prompt: req.PromptEstimate(), Estimated: true}
	u.Total = u.Prompt
	body, ok := ask.Embeddings(model, vectors, inBase64, u)
	if !ok {
		yield(nil, t.protocolError("an embedding that is no array of numbers"))
		return
	}
	if yield([]streaming.Event{{Kind: streaming.Meta, Meta: &streaming.MetaData{Model: model, Header: q.Header()}}}, nil) {
		yield([]streaming.Event{{Kind: streaming.Whole, Dialect: streaming.Opaque, Raw: body, Usage: u}}, nil)
	}
}

func (t target) embeddings(q *ask.Params) (list []embedding, inBase64 bool, err error) {
	texts, err := q.Inputs()
	if err != nil {
		return nil, false, err
	}
	if inBase64, err = q.Base64(); err != nil {
		return nil, false, err
	}
	size, _, err := q.Integer("dimensions", 1)
	if err != nil {
		return nil, false, err
	}
	task, err := q.String("task_type")
	if err != nil {
		return nil, false, err
	}
	name := t.model
	if !strings.Contains(name, "/") {
		name = "models/" + name
	}
	for i, s := range texts {
		if s == "" {
			return nil, false, q.Wrong(fmt.Sprintf("input[%d]", i), "a text that is not empty")
		}
		list = append(list, embedding{Model: name, Content: content{Parts: []part{{Text: s}}}, Task: task, Size: size})
	}
	return list, inBase64, q.Rest()
}

func (t target) embedSome(ctx context.Context, list []embedding) (vectors [][]byte, err error) {
	body, err := t.encode(map[string]any{"requests": list})
	if err != nil {
		return nil, err
	}
	resp, err := t.up.Do(ctx, &upstream.Request{Method: http.MethodPost, Path: t.path("batchEmbedContents"), ContentType: "application/json", Accept: "application/json", Body: body})
	if err != nil {
		return nil, err
	}
	read := false
	defer func() { resp.Close(read) }()
	if resp.Status != http.StatusOK {
		return nil, t.refusal(t.path("batchEmbedContents"), resp)
	}
	text, err := t.readAll(resp.Body)
	if err != nil {
		return nil, err
	}
	read = true
	var answer struct {
		Embeddings []struct {
			Values json.RawMessage `json:"values"`
		} `json:"embeddings"`
	}
	if json.Unmarshal(text, &answer) != nil || len(answer.Embeddings) != len(list) {
		return nil, t.protocolError(fmt.Sprintf("an answer without %d embeddings", len(list)))
	}
	for i := range answer.Embeddings {
		vectors = append(vectors, answer.Embeddings[i].Values)
	}
	return vectors, nil
}
