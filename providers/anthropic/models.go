package anthropic

import (
	"context"
	"encoding/json"
	"fmt"
	"net/url"
	"time"

	"sluice/providers"
	"sluice/providers/upstream"
)

// Models asks the upstream which models it has; those that it calls retired are left out.
func (p *Provider) Models(ctx context.Context) ([]providers.Model, error) {
	pages := upstream.Pages{Client: p.up, Path: modelsBehind, Read: parseModels, Refusal: func(a *upstream.Answer) error { return p.refusal("/models", a) }}
	return pages.Models(ctx)
}

func modelsBehind(after string) string {
	path := "/models?limit=1000"
	if after != "" {
		path += "&after_id=" + url.QueryEscape(after)
	}
	return path
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
