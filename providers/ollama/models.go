package ollama

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"sluice/providers"
	"sluice/providers/upstream"
)

// maxDescription bounds the answers of /api/tags and /api/show, in bytes.
const maxDescription = 8 << 20

// defaultTag is the tag that a name without one means.
const defaultTag = ":latest"

// Models asks the upstream which models it has. One with the default tag is listed under
// its short name too, by which most callers know it.
func (p *Provider) Models(ctx context.Context) ([]providers.Model, error) {
	var list struct {
		Models []json.RawMessage `json:"models"`
	}
	if err := p.describe(ctx, &upstream.Request{Method: http.MethodGet, Path: "/api/tags", Accept: "application/json"}, &list); err != nil {
		return nil, fmt.Errorf("listing models: %w", err)
	}
	if list.Models == nil {
		return nil, fmt.Errorf("listing models: %w", p.notOllama("/api/tags", "JSON without a list of models"))
	}
	p.learn(ctx, list.Models)
	out := make([]providers.Model, 0, len(list.Models))
	for _, raw := range list.Models {
		var m struct {
			Name     string    `json:"name"`
			Modified time.Time `json:"modified_at"`
		}
		if json.Unmarshal(raw, &m) != nil || m.Name == "" {
			continue
		}
		one := providers.Model{ID: m.Name, Created: max(m.Modified.Unix(), 0), OwnedBy: "ollama", Raw: raw}
		out = append(out, one)
		if short, is := strings.CutSuffix(m.Name, defaultTag); is {
			one.ID = short
			out = append(out, one)
		}
	}
	return out, nil
}

// describe asks for a short JSON answer.
func (p *Provider) describe(ctx context.Context, r *upstream.Request, into any) error {
	resp, err := p.up.Do(ctx, r)
	if err != nil {
		return err
	}
	read := false
	defer func() { resp.Close(read) }()
	if resp.Status != http.StatusOK {
		return p.refusal(r.Path, resp)
	}
	text, err := io.ReadAll(io.LimitReader(resp.Body, maxDescription))
	if err != nil {
		return upstream.Cause(ctx, err)
	}
	read = true
	if json.Unmarshal(text, into) != nil {
		return p.notOllama(r.Path, "something that is not JSON")
	}
	return nil
}
