package openai

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"

	"sluice/providers"
	"sluice/providers/upstream"
)

// maxModelList bounds the answer of GET /models.
const maxModelList = 8 << 20

// Models asks the upstream which models it has. An answer without a data array is
// an error, for some servers answer 200 on every path.
func (p *Provider) Models(ctx context.Context) ([]providers.Model, error) {
	resp, err := p.up.Do(ctx, &upstream.Request{Method: http.MethodGet, Path: "/models", Accept: "*/*"})
	if err != nil {
		return nil, fmt.Errorf("listing models: %w", err)
	}
	read := false
	defer func() { resp.Close(read) }()
	if resp.Status != http.StatusOK {
		return nil, fmt.Errorf("listing models: %w", upstream.Refusal(p.name, resp))
	}
	text, err := io.ReadAll(io.LimitReader(resp.Body, maxModelList))
	if err != nil {
		return nil, fmt.Errorf("listing models: %w", err)
	}
	read = true
	return parseModels(text)
}

func parseModels(text []byte) ([]providers.Model, error) {
	var list struct {
		Data []json.RawMessage `json:"data"`
	}
	if err := json.Unmarshal(text, &list); err != nil || list.Data == nil {
		return nil, fmt.Errorf("listing models: the upstream's answer has no data array")
	}
	out := make([]providers.Model, 0, len(list.Data))
	for _, raw := range list.Data {
		var m struct {
			ID      string  `json:"id"`
			Created float64 `json:"created"`
			OwnedBy string  `json:"owned_by"`
		}
		if json.Unmarshal(raw, &m) == nil && m.ID != "" {
			out = append(out, providers.Model{ID: m.ID, Created: int64(m.Created), OwnedBy: m.OwnedBy, Raw: raw})
		}
	}
	return out, nil
}
