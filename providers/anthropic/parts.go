package anthropic

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"

	"sluice/providers"
	"sluice/streaming/jsonscan"
)

// source is where the content of an image or a document is.
type source struct {
	Type      string `json:"type"` // base64, text or url
	MediaType string `json:"media_type,omitempty"`
	Data      string `json:"data,omitempty"`
	URL       string `json:"url,omitempty"`
}

// part is one of OpenAI's content parts.
type part struct {
	Type     string          `json:"type"`
	Text     string          `json:"text"`
	Refusal  string          `json:"refusal"`
	ImageURL json.RawMessage `json:"image_url"`
	File     struct {
		Name string `json:"filename"`
		Data string `json:"file_data"`
		ID   string `json:"file_id"`
	} `json:"file"`
	CacheControl json.RawMessage `json:"cache_control"`
}

// Where only text can stand, and where images and documents can too.
const (
	textOnly = false
	anything = true
)

// parts translates content, a string or an array of parts. Empty text, which the API
// refuses, is left out.
func (a *request) parts(at string, content json.RawMessage, media bool) ([]block, error) {
	if len(content) == 0 || string(content) == "null" {
		return nil, nil
	}
	if text, ok := jsonscan.Unquote(content); ok {
		return textBlock(text, nil), nil
	}
	var list []part
	if json.Unmarshal(content, &list) != nil {
		return nil, providers.Invalid(at+".content", `The content of a message must be a string or an array of parts such as {"type":"text","text":"…"}.`)
	}
	var blocks []block
	for i := range list {
		got, err := a.part(fmt.Sprintf("%s.content[%d]", at, i), &list[i], media)
		if err != nil {
			return nil, err
		}
		blocks = append(blocks, got...)
	}
	return blocks, nil
}

func textBlock(text string, cache json.RawMessage) []block {
	if text == "" {
		return nil
	}
	return []block{{Type: "text", Text: text, CacheControl: cache}}
}

func (a *request) part(at string, p *part, media bool) ([]block, error) {
	var b block
	var err error
	switch {
	case p.Type == "text":
		return textBlock(p.Text, p.CacheControl), nil
	case p.Type == "refusal":
		return textBlock(p.Refusal, nil), nil
	case p.Type == "image_url" && media:
		b, err = a.image(at+".image_url", p.ImageURL)
	case p.Type == "file" && media:
		b, err = a.document(at+".file", p)
	default:
		err = providers.Invalid(at+".type", fmt.Sprintf("A content part of the type %q has no place here with the model %q.", p.Type, a.req.Model))
	}
	b.CacheControl = p.CacheControl
	return []block{b}, err
}

// image takes {"url":…} and, as some clients send it, the bare string.
func (a *request) image(at string, raw json.RawMessage) (block, error) {
	var object struct {
		URL string `json:"url"`
	}
	url, bare := jsonscan.Unquote(raw)
	if !bare {
		_ = json.Unmarshal(raw, &object)
		url = object.URL
	}
	if strings.HasPrefix(url, "https://") || strings.HasPrefix(url, "http://") {
		return block{Type: "image", Source: &source{Type: "url", URL: url}}, nil // the API fetches it
	}
	_, data, ok := dataURL(url)
	if !ok {
		return block{}, providers.Invalid(at, fmt.Sprintf("An image_url part for the model %q needs an http(s) URL or a data URL in base64, such as data:image/png;base64,….", a.req.Model))
	}
	kind, err := sniff(data)
	if err != nil || !slices.Contains(imageTypes, kind) {
		return block{}, providers.Invalid(at, fmt.Sprintf("The image cannot be read: the model %q takes JPEG, PNG, GIF and WebP in base64.", a.req.Model))
	}
	return block{Type: "image", Source: &source{Type: "base64", MediaType: kind, Data: data}}, nil
}

// imageTypes are those that the API takes.
var imageTypes = []string{"image/jpeg", "image/png", "image/gif", "image/webp"}

func (a *request) document(at string, p *part) (block, error) {
	if p.File.ID != "" {
		return block{}, providers.Invalid(at+".file_id", fmt.Sprintf("The model %q does not know files by id: send file_data.", a.req.Model))
	}
	kind, data, ok := dataURL(p.File.Data)
	b := block{Type: "document", Title: p.File.Name}
	switch {
	case ok && kind == "application/pdf":
		if _, err := sniff(data); err == nil {
			b.Source = &source{Type: "base64", MediaType: kind, Data: data}
			return b, nil
		}
	case ok && strings.HasPrefix(kind, "text/"):
		if text, err := base64.StdEncoding.DecodeString(data); err == nil {
			b.Source = &source{Type: "text", MediaType: "text/plain", Data: string(text)}
			return b, nil
		}
	}
	return block{}, providers.Invalid(at+".file_data", fmt.Sprintf("The file cannot be read: the model %q takes PDF and text as a data URL in base64.", a.req.Model))
}

// dataURL takes a URL of RFC 2397 apart; only base64 is known.
func dataURL(url string) (kind, data string, ok bool) {
	rest, ok := strings.CutPrefix(url, "data:")
	if !ok {
		return "", "", false
	}
	head, data, ok := strings.Cut(rest, ",")
	head, coded := strings.CutSuffix(head, ";base64")
	kind, _, _ = strings.Cut(head, ";")
	return strings.ToLower(kind), data, ok && coded && data != ""
}

// sniff checks base64 and tells what its first bytes are: the type that a data URL
// declares is often wrong, and the API compares.
func sniff(data string) (kind string, err error) {
	r := base64.NewDecoder(base64.StdEncoding, strings.NewReader(data))
	var first [512]byte
	n, err := io.ReadFull(r, first[:])
	if n == 0 {
		return "", err
	}
	if _, err := io.Copy(io.Discard, r); err != nil {
		return "", err
	}
	return http.DetectContentType(first[:n]), nil
}
