package gemini

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"sluice/providers"
	"sluice/providers/upstream"
)

// Bounds of a list of models.
const (
	maxModelPage  = 8 << 20 // bytes
	maxModelPages = 20
)

// Models asks the upstream which models it has that answer or embed.
func (p *Provider) Models(ctx context.Context) ([]providers.Model, error) {
	var all []providers.Model
	token := ""
	for range maxModelPages {
		list, next, err := p.modelPage(ctx, token)
		if err != nil {
			return nil, fmt.Errorf("listing models: %w", err)
		}
		if all = append(all, list...); next == "" {
			return all, nil
		}
		token = next
	}
	return all, nil
}

func (p *Provider) modelPage(ctx context.Context, token string) (list []providers.Model, next string, err error) {
	path := "/models?pageSize=1000"
	if token != "" {
		path += "&pageToken=" + url.QueryEscape(token)
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
