package wall

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"mime/multipart"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// call is one call while it is answered. It belongs to the handler's goroutine.
type call struct {
	wall    *Wall
	rec     *record
	ctx     context.Context
	out     *writer
	s       Script
	f       facts
	path    string // without /v1
	created int64
}

var (
	errEnded = errors.New("ended by script") // the record is closed already
	errAbort = errors.New("aborted by script")
)

// facts is what the wall reads of a request.
type facts struct {
	Model         string
	Stream        bool
	StreamOptions *struct {
		IncludeUsage bool `json:"include_usage"`
	} `json:"stream_options"`
	N                   *int
	MaxTokens           *int `json:"max_tokens"`
	MaxCompletionTokens *int `json:"max_completion_tokens"`
	MaxOutputTokens     *int `json:"max_output_tokens"`
	Messages            []struct {
		Role    string
		Content json.RawMessage
	}
	Prompt, Input, Instructions json.RawMessage
	EncodingFormat              string `json:"encoding_format"`
	Dimensions                  *int
	ResponseFormat              json.RawMessage `json:"response_format"`
	Tools                       []struct {
		Name     string
		Function struct{ Name string }
	}
	Query     string
	Documents []json.RawMessage
	TopN      *int `json:"top_n"`

	prompt  int // its tokens
	choices int
}

var endpoints = map[string]func(*call) error{
	"POST /chat/completions":     (*call).chat,
	"POST /completions":          (*call).completions,
	"POST /responses":            (*call).responses,
	"POST /embeddings":           (*call).embeddings,
	"POST /moderations":          (*call).moderations,
	"POST /rerank":               (*call).rerank,
	"POST /images/generations":   (*call).images,
	"POST /audio/speech":         (*call).speech,
	"POST /audio/transcriptions": (*call).transcriptions,
	"POST /audio/translations":   (*call).transcriptions,
	"GET /models":                (*call).modelList,
	"GET /health":                (*call).health,
	"GET /healthz":               (*call).health,
	"GET /readyz":                (*call).health,
}

func trimVersion(path string) string {
	if rest, ok := strings.CutPrefix(path, "/v1/"); ok {
		return "/" + rest
	}
	return path
}

// serve answers the call and reports whether its connection is to be broken.
func (c *call) serve(r *http.Request, body []byte) (abort bool) {
	c.path, c.created = trimVersion(r.URL.Path), time.Now().Unix()
	endpoint := endpoints[r.Method+" "+c.path]
	if endpoint == nil && r.Method == http.MethodGet && strings.HasPrefix(c.path, "/models/") {
		endpoint = (*call).model
	}
	if endpoint == nil {
		c.invalid(http.StatusNotFound, fmt.Sprintf("Unknown request URL: %s %s.", r.Method, r.URL.Path))
		return false
	}
	if key := c.wall.apiKey; key != "" && r.Header.Get("Authorization") != "Bearer "+key && !strings.HasPrefix(c.path, "/health") {
		c.invalid(http.StatusUnauthorized, "Incorrect API key provided.")
		return false
	}
	if err := c.understand(r, body); err != nil {
		c.invalid(http.StatusBadRequest, err.Error())
		return false
	}
	err := c.prelude()
	if err == nil {
		err = endpoint(c)
	}
	switch {
	case err == nil:
		c.rec.close(Complete, nil)
	case errors.Is(err, errEnded):
	case errors.Is(err, errAbort):
		return true
	default:
		c.rec.close(ClientGone, err)
	}
	return false
}

// understand reads the request and finds its script.
func (c *call) understand(r *http.Request, body []byte) (err error) {
	if r.Method == http.MethodPost {
		if err := c.f.read(r.Header.Get("Content-Type"), body); err != nil {
			return err
		}
	}
	c.f.count()
	var key string
	var attempt int
	c.s, key, attempt, err = c.wall.choose(c.path, c.f.Model, string(body))
	if c.s.Prompt > 0 {
		c.f.prompt = c.s.Prompt
	}
	now := time.Now()
	c.rec.update(func(q *Request) {
		q.Read, q.Model, q.Stream, q.Key, q.Attempt, q.Prompt = now, c.f.Model, c.f.Stream, key, attempt, c.f.prompt
	})
	if err != nil {
		return err
	}
	if r.Method == http.MethodPost && c.f.Model == "" {
		return errors.New("you must provide a model parameter")
	}
	return nil
}

func (f *facts) read(contentType string, body []byte) error {
	media, params, _ := mime.ParseMediaType(contentType)
	if media == "multipart/form-data" {
		return f.readForm(body, params["boundary"])
	}
	if err := json.Unmarshal(body, f); err != nil {
		return fmt.Errorf("we could not parse the JSON body of your request: %w", err)
	}
	return nil
}

func (f *facts) readForm(body []byte, boundary string) error {
	parts := multipart.NewReader(bytes.NewReader(body), boundary)
	for {
		part, err := parts.NextPart()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("reading the form: %w", err)
		}
		value, err := io.ReadAll(io.LimitReader(part, 4096))
		if err != nil {
			return fmt.Errorf("reading the form: %w", err)
		}
		switch part.FormName() {
		case "model":
			f.Model = string(value)
		case "stream":
			f.Stream = string(value) == "true"
		case "response_format":
			f.ResponseFormat = json.RawMessage(quote(string(value)))
		case "prompt":
			f.Prompt = json.RawMessage(quote(string(value)))
		}
	}
}

// count fills in the prompt's tokens (words of all texts, at least 1) and the number of choices.
func (f *facts) count() {
	words := 0
	for _, m := range f.Messages {
		words += countWords(m.Content)
	}
	f.prompt = max(1, words+countWords(f.Prompt)+countWords(f.Input)+countWords(f.Instructions))
	f.choices = 1
	if f.N != nil {
		f.choices = min(max(*f.N, 1), 128)
	}
	var prompts []string
	if json.Unmarshal(f.Prompt, &prompts) == nil {
		f.choices *= min(max(len(prompts), 1), 128)
	}
}

// countWords counts the words of the strings in a JSON value and its numbers, which are token ids. Of objects it
// counts the texts of content parts and nothing else.
func countWords(raw json.RawMessage) int {
	var v any
	if json.Unmarshal(raw, &v) != nil {
		return 0
	}
	var walk func(v any) int
	walk = func(v any) (n int) {
		switch v := v.(type) {
		case string:
			return len(strings.Fields(v))
		case float64:
			return 1
		case []any:
			for _, x := range v {
				n += walk(x)
			}
		case map[string]any:
			n = walk(v["text"]) + walk(v["content"])
		}
		return n
	}
	return walk(v)
}

// prelude does what comes before the headers of a good answer.
func (c *call) prelude() error {
	s := &c.s
	h := c.out.rw.Header()
	h.Set("X-Request-Id", fmt.Sprintf("req_wall%d", c.rec.req.ID))
	h.Set("Openai-Version", "2020-10-01")
	if s.Informational != 0 {
		c.out.rw.WriteHeader(s.Informational)
	}
	if err := c.out.sleep(s.Headers); err != nil {
		return err
	}
	if err := c.breakAt(BeforeHeaders, nil); err != nil {
		return err
	}
	return c.refuse()
}

// breakAt does what the script means at a position: stall, then reset, abort or cut. With Partial the first half of
// next goes out before. Streams flush what they hold before they call it.
func (c *call) breakAt(at At, next []byte) error {
	s := &c.s
	if s.Stall != at && s.Reset != at && s.Abort != at && s.Cut != at {
		return nil
	}
	if s.Partial && at != BeforeHeaders {
		if err := c.out.write(next[:len(next)/2]); err != nil {
			return err
		}
	}
	if s.Stall == at {
		wait := s.StallFor
		if wait == 0 {
			wait = maxDuration
		}
		if err := c.out.sleep(wait); err != nil {
			return err
		}
	}
	switch {
	case s.Reset == at:
		if !c.out.reset() {
			return c.stop(Abort, errAbort)
		}
		return c.stop(Reset, errEnded)
	case s.Abort == at, s.Cut == BeforeHeaders && at == BeforeHeaders:
		return c.stop(Abort, errAbort)
	case s.Cut == at:
		return c.stop(Cut, errEnded)
	}
	return nil
}

func (c *call) stop(end End, how error) error {
	c.rec.close(end, how)
	return how
}

// id makes an id that is unique at this wall.
func (c *call) id(prefix string) string {
	return prefix + "wall" + strconv.FormatInt(c.rec.req.ID, 10)
}
