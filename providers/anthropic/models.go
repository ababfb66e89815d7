package anthropic

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"time"

	"sluice/providers"
	"sluice/providers/upstream"
)

// Bounds of a list of models.
const (
	maxModelPage  = 8 << 20 // bytes
	maxModelPages = 20
)

// Models asks the upstream which models it has; those that it calls retired are left out.
func (p *Provider) Models(ctx context.Context) ([]providers.Model, error) {
	var all []providers.Model
	after := ""
	for range maxModelPages {
		list, next, err := p.modelPage(ctx, after)
		if err != nil {
			return nil, fmt.Errorf("listing models: %w", err)
		}
		if all = append(all, list...); next == "" {
			return all, nil
		}
		after = next
	}
	return all, nil
}

func (p *Provider) modelPage(ctx context.Context, after string) (list []providers.Model, next string, err error) {
	path := "/models?limit=1000"
	if after != "" {
		path += "&after_id=" + url.QueryEscape(after)
	}
	resp, err := p.up.Do(ctx, &upstream.Request{Method: http.MethodGet, Path: path, Accept: "application/json"})
	if err != nil {
		return nil, "", err
	}
	read := false
	defer func() { resp.Close(read) }()
	if resp.Status != http.StatusOK {
		return nil, "", p.refusal(resp)
	}
	text, err := io.ReadAll(io.LimitReader(resp.Body, maxModelPage))
	if err != nil {
		return nil, "", err
	}
	read = true
	return parseModels(text)
}

func parseModels(text []byte) (list []providers.Model, next string, err error) {
	var page struct {
		Data    []json.RawMessage `json:"data"`
		HasMore bool              `json:"has_more"`
		LastID  string            `json:"last_id"`
	}
	if err := json.Unmarshal(text, &page); err != nil || page.Data == nil {
		return nil, "", fmt.Errorf("the upstream's answer has no data array")
	}
	for _, raw := range page.Data {
		var m struct {
			ID        string    `json:"id"`
			CreatedAt time.Time `json:"created_at"`
			Lifecycle string    `json:"lifecycle"`
		}
		// A date in another form leaves the fields behind it unread: the id comes first.
		_ = json.Unmarshal(raw, &m)
		if m.ID == "" || m.Lifecycle == "retired" {
			continue
		}
		list = append(list, providers.Model{ID: m.ID, Created: max(m.CreatedAt.Unix(), 0), OwnedBy: "anthropic", Raw: raw})
	}
	if page.HasMore {
		next = page.LastID
	}
	return list, next, nil
}
