package mii

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"

	"sluice/providers"
	"sluice/providers/upstream"
)

// overREST reaches the RESTful gateway, which answers at once or not at all. Only the
// one path of the deployment is ever asked for: another shuts the gateway down.
type overREST struct {
	*Options
	up   *upstream.Client
	path string
}

func newREST(o *Options) *overREST {
	var path strings.Builder
	path.WriteString("/mii")
	for part := range strings.SplitSeq(o.Deployment, "/") { // a slash in the name is one in the path
		path.WriteString("/" + url.PathEscape(part))
	}
	return &overREST{Options: o, up: upstream.New(o.Upstream), path: path.String()}
}

func (r *overREST) whole(ctx context.Context, j *job) ([]reply, error) {
	body, err := json.Marshal(r.request(j))
	if err != nil {
		return nil, &providers.Error{Kind: providers.Internal, Target: r.Upstream.Name, Message: "the request cannot be written as JSON", Err: err}
	}
	a, err := r.up.Do(ctx, &upstream.Request{Method: http.MethodPost, Path: r.path, ContentType: "application/json", Accept: "application/json", Body: body})
	if err != nil {
		return nil, err
	}
	finished := false
	defer func() { a.Close(finished) }()
	if a.Status != http.StatusOK {
		finished = true
		return nil, r.refusal(a)
	}
	text, err := io.ReadAll(io.LimitReader(a.Body, int64(r.MaxAnswer)+1))
	switch {
	case err != nil:
		return nil, upstream.Cause(ctx, &providers.Error{Kind: providers.Truncated, Target: r.Upstream.Name, Message: "the connection to the upstream broke before the answer was finished", Err: err})
	case len(text) > r.MaxAnswer:
		return nil, &providers.Error{Kind: providers.EventTooLarge, Target: r.Upstream.Name, Message: fmt.Sprintf("the upstream's answer is longer than the limit of %d bytes", r.MaxAnswer)}
	}
	finished = true
	return r.read(text, j)
}

// refusal: a path that is not there is the configuration's fault, not the caller's.
func (r *overREST) refusal(a *upstream.Answer) *providers.Error {
	e := upstream.Refusal(r.Upstream.Name, a)
	if a.Status == http.StatusNotFound || a.Status == http.StatusMethodNotAllowed {
		e.Kind, e.Status = providers.Protocol, 0
		e.Message = fmt.Sprintf("expected the RESTful gateway of DeepSpeed-MII with the deployment %q, and got status %d at %s; does mii.deployment name it?", r.Deployment, a.Status, r.path)
	}
	return e
}

// request is the body: flat since 0.1.2, nested before. It never holds "stream", which
// would leave the rest of the answer to another caller.
func (r *overREST) request(j *job) any {
	params := map[string]any{"max_new_tokens": j.maxNewTokens, "do_sample": j.sample, "temperature": j.temperature, "top_p": j.topP}
	if r.Generation != Current {
		return map[string]any{"request": map[string]any{"query": j.prompts}, "kwargs": params}
	}
	params["prompts"] = j.prompts
	return params
}

// read takes a list of answers; of old versions a string that holds JSON.
func (r *overREST) read(text []byte, j *job) ([]reply, error) {
	if r.Generation != Current {
		return r.readOld(text, j)
	}
	var all []struct {
		Text      *string `json:"generated_text"`
		Prompt    int64   `json:"prompt_length"`
		Generated int64   `json:"generated_length"`
		Finish    string  `json:"finish_reason"`
	}
	if err := json.Unmarshal(text, &all); err != nil {
		return nil, r.strange(shape(text))
	}
	var replies []reply
	for _, a := range all {
		if a.Text == nil {
			return nil, r.strange("a list of something else than answers")
		}
		one, err := r.told(*a.Text, a.Finish, a.Prompt, a.Generated)
		if err != nil {
			return nil, err
		}
		replies = append(replies, one)
	}
	return replies, nil
}

func (r *overREST) readOld(text []byte, j *job) ([]reply, error) {
	var inner string
	var old struct {
		Response []string `json:"response"`
	}
	if json.Unmarshal(text, &inner) != nil || json.Unmarshal([]byte(inner), &old) != nil {
		return nil, r.strange(shape(text))
	}
	return untold(old.Response, j.prompts), nil
}

// shape names what came.
func shape(text []byte) string {
	switch s := strings.TrimSpace(string(text[:min(len(text), 64)])); {
	case s == "":
		return "an empty body"
	case s[0] == '<':
		return "an HTML page"
	case !json.Valid(text):
		return "something that is not JSON"
	default:
		return "JSON of another shape"
	}
}

// stream is never asked for.
func (r *overREST) stream(context.Context, *job) (*messages, error) {
	return nil, r.strange("the wish for a stream, which it has not")
}

// reach asks for the health of the gateway. Old ones have no such path.
func (r *overREST) reach(ctx context.Context) error {
	a, err := r.up.Do(ctx, &upstream.Request{Method: http.MethodGet, Path: "/healthz", Accept: "*/*"})
	if err != nil {
		return err
	}
	defer a.Close(true)
	if a.Status != http.StatusOK && a.Status != http.StatusNotFound {
		return upstream.Refusal(r.Upstream.Name, a)
	}
	return nil
}

func (r *overREST) close() { r.up.CloseIdle() }
