package gemini

import (
	"context"
	"encoding/json"
	"fmt"
	"net/url"
	"slices"
	"strings"

	"sluice/providers"
	"sluice/providers/upstream"
)

// Models asks the upstream which models it has that answer or embed.
func (p *Provider) Models(ctx context.Context) ([]providers.Model, error) {
	pages := upstream.Pages{Client: p.up, Path: modelsBehind, Read: parseModels, Refusal: func(a *upstream.Answer) error { return p.refusal("/models", a) }}
	return pages.Models(ctx)
}

func modelsBehind(token string) string {
	path := "/models?pageSize=1000"
	if token != "" {
		path += "&pageToken=" + url.QueryEscape(token)
	}
	return path
}

func parseModels(text []byte) (list []providers.Model, next string, err error) {
	var page struct {
		Models []json.RawMessage `json:"models"`
		Next   string            `json:"nextPageToken"`
	}
	if err := json.Unmarshal(text, &page); err != nil || page.Models == nil {
		return nil, "", fmt.Errorf("the upstream's answer has no array of models")
	}
	for _, raw := range page.Models {
		var m struct {
			Name    string   `json:"name"`
			Methods []string `json:"supportedGenerationMethods"`
		}
		_ = json.Unmarshal(raw, &m) // what has no name is passed over
		if id := strings.TrimPrefix(m.Name, "models/"); id != "" && serves(m.Methods) {
			list = append(list, providers.Model{ID: id, OwnedBy: "google", Raw: raw})
		}
	}
	return list, page.Next, nil
}

// serves reports whether a model does something that this adapter asks for.
func serves(methods []string) bool {
	return len(methods) == 0 || slices.ContainsFunc(methods, func(m string) bool {
		return m == "generateContent" || m == "embedContent" || m == "batchEmbedContents"
	})
}
