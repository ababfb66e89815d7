package upstream

import (
	"context"
	"fmt"
	"io"
	"net/http"

	"sluice/providers"
)

// Bounds of a list of models that comes in pages.
const (
	maxPage  = 8 << 20 // bytes
	maxPages = 20
)

// Pages is how an upstream lists its models.
type Pages struct {
	Client *Client
	// Path is that of the page behind a mark, and of the first page for "".
	Path func(after string) string
	// Read reads a page; next marks the one behind it, "" says that there is none.
	Read func(page []byte) (models []providers.Model, next string, err error)
	// Refusal reads an answer that is no page.
	Refusal func(*Answer) error
}

// Models reads the pages one by one. A list of very many pages is cut.
func (p *Pages) Models(ctx context.Context) ([]providers.Model, error) {
	var all []providers.Model
	after := ""
	for range maxPages {
		page, err := p.page(ctx, after)
		if err != nil {
			return nil, fmt.Errorf("listing models: %w", err)
		}
		models, next, err := p.Read(page)
		if err != nil {
			return nil, fmt.Errorf("listing models: %w", err)
		}
		if all = append(all, models...); next == "" {
			break
		}
		after = next
	}
	return all, nil
}

func (p *Pages) page(ctx context.Context, after string) ([]byte, error) {
	resp, err := p.Client.Do(ctx, &Request{Method: http.MethodGet, Path: p.Path(after), Accept: "application/json"})
	if err != nil {
		return nil, err
	}
	read := false
	defer func() { resp.Close(read) }()
	if resp.Status != http.StatusOK {
		return nil, p.Refusal(resp)
	}
	text, err := io.ReadAll(io.LimitReader(resp.Body, maxPage))
	if err != nil {
		return nil, err
	}
	read = true
	return text, nil
}
