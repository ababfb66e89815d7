package tgi

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"

	"sluice/providers"
	"sluice/providers/upstream"
)

// maxInfo bounds the answer of /info, in bytes.
const maxInfo = 1 << 20

// Models asks which model the server has; there is one.
func (p *Provider) Models(ctx context.Context) ([]providers.Model, error) {
	resp, err := p.up.Do(ctx, &upstream.Request{Method: http.MethodGet, Path: "/info", Accept: "application/json"})
	if err != nil {
		return nil, fmt.Errorf("listing models: %w", err)
	}
	read := false
	defer func() { resp.Close(read) }()
	if resp.Status != http.StatusOK {
		return nil, fmt.Errorf("listing models: %w", p.refusal("/info", resp))
	}
	text, err := io.ReadAll(io.LimitReader(resp.Body, maxInfo))
	if err != nil {
		return nil, fmt.Errorf("listing models: %w", upstream.Cause(ctx, err))
	}
	read = true
	var info struct {
		ID string `json:"model_id"`
	}
	if json.Unmarshal(text, &info) != nil || info.ID == "" {
		return nil, fmt.Errorf("listing models: %w", notTGI(p.name, "/info", "something without a model_id"))
	}
	return []providers.Model{{ID: info.ID, OwnedBy: "tgi", Raw: text}}, nil
}
