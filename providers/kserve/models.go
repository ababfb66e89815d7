package kserve

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"sluice/providers"
	"sluice/providers/kserve/oip"
	"sluice/providers/upstream"
)

// maxList bounds the answer to a question about models or readiness over HTTP.
const maxList = 8 << 20

// Models asks the upstream which of its models are ready. A server that has no index of
// them is asked about those that are declared.
func (p *Provider) Models(ctx context.Context) ([]providers.Model, error) {
	if p.err != nil {
		return nil, p.err
	}
	if err := p.Ready(ctx); err != nil {
		return nil, fmt.Errorf("listing models: %w", err)
	}
	names, err := p.via.list(ctx)
	if errors.Is(err, errNoIndex) {
		names, err = p.readyModels(ctx)
	}
	if err != nil {
		return nil, fmt.Errorf("listing models: %w", err)
	}
	slices.Sort(names)
	var out []providers.Model
	for _, name := range slices.Compact(names) {
		out = append(out, providers.Model{ID: name, OwnedBy: p.name})
	}
	return out, nil
}

// Ready reports, as an *Error, a server that is not ready.
func (p *Provider) Ready(ctx context.Context) error {
	ok, err := p.via.ready(ctx, "", "")
	if err == nil && !ok {
		err = &providers.Error{Kind: providers.Overloaded, Target: p.name, Message: "the server is not ready"}
	}
	return err
}

// readyModels asks about each declared model.
func (p *Provider) readyModels(ctx context.Context) ([]string, error) {
	var names []string
	for _, name := range slices.Sorted(maps.Keys(p.models)) {
		ok, err := p.via.ready(ctx, name, p.models[name].Version)
		if err != nil {
			return nil, err
		}
		if ok {
			names = append(names, name)
		}
	}
	return names, nil
}

// index is one entry of a repository's index.
type index struct {
	Name  string `json:"name"`
	State string `json:"state"`
}

// list asks for the index of the model repository (Triton's extension).
func (h *overHTTP) list(ctx context.Context) ([]string, error) {
	resp, text, err := h.small(ctx, &upstream.Request{Method: http.MethodPost, Path: "/v2/repository/index", ContentType: typeJSON, Accept: typeJSON, Body: []byte(`{"ready":true}`)})
	if err != nil {
		return nil, err
	}
	switch resp.Status {
	case http.StatusOK:
	case http.StatusNotFound, http.StatusMethodNotAllowed, http.StatusNotImplemented:
		return nil, errNoIndex
	default:
		return nil, h.refusalOf(resp, text)
	}
	var all []index
	if err := json.Unmarshal(text, &all); err != nil {
		return nil, h.strange(resp, text, errors.New("its body is not the index of a repository"))
	}
	return readyNames(all), nil
}

// readyNames are the models that are ready; servers that do not know the filter list
// others too.
func readyNames(all []index) []string {
	var names []string
	for _, m := range all {
		state := strings.TrimPrefix(m.State, "State.") // as MLServer writes it over gRPC
		if m.Name != "" && (state == "READY" || state == "") {
			names = append(names, m.Name)
		}
	}
	return names
}

// ready asks for health. Triton says 400 of what is not ready, others 503.
func (h *overHTTP) ready(ctx context.Context, model, version string) (bool, error) {
	path := "/v2/health/ready"
	if model != "" {
		path = modelPath(model, version, "/ready")
	}
	resp, text, err := h.small(ctx, &upstream.Request{Method: http.MethodGet, Path: path, Accept: "*/*"})
	if err != nil {
		return false, err
	}
	switch resp.Status {
	case http.StatusOK:
		var said struct {
			Ready *bool `json:"ready"`
		}
		if resp.IsType("text/html") {
			return false, h.strange(resp, text, errors.New(""))
		}
		if json.Unmarshal(text, &said) == nil && said.Ready != nil {
			return *said.Ready, nil
		}
		return true, nil
	case http.StatusBadRequest, http.StatusServiceUnavailable:
		return false, nil
	case http.StatusNotFound:
		if model != "" {
			return false, nil
		}
	}
	return false, h.refusalOf(resp, text)
}

// small makes an exchange whose answer is short, and is done with it.
func (h *overHTTP) small(ctx context.Context, r *upstream.Request) (resp *upstream.Answer, text []byte, err error) {
	if resp, err = h.up.Do(ctx, r); err != nil {
		return nil, nil, err
	}
	text, err = io.ReadAll(io.LimitReader(resp.Body, maxList))
	resp.Close(err == nil)
	if err != nil {
		return nil, nil, h.broken(err)
	}
	return resp, text, nil
}

func (h *overHTTP) refusalOf(resp *upstream.Answer, text []byte) error {
	e := upstream.RefusalOf(h.name, resp, upstream.ReadWords(text))
	if resp.Status == http.StatusForbidden {
		e.Kind = providers.UpstreamCredential
	}
	return e
}

func (g *overGRPC) list(ctx context.Context) ([]string, error) {
	resp, err := g.client.RepositoryIndex(ctx, &oip.RepositoryIndexRequest{Ready: true})
	if status.Code(err) == codes.Unimplemented {
		return nil, errNoIndex
	}
	if err != nil {
		return nil, g.fault(err)
	}
	var all []index
	for _, m := range resp.GetModels() {
		all = append(all, index{m.GetName(), m.GetState()})
	}
	return readyNames(all), nil
}

func (g *overGRPC) ready(ctx context.Context, model, version string) (bool, error) {
	if model == "" {
		resp, err := g.client.ServerReady(ctx, &oip.ServerReadyRequest{})
		if err != nil {
			return false, g.fault(err)
		}
		return resp.GetReady(), nil
	}
	resp, err := g.client.ModelReady(ctx, &oip.ModelReadyRequest{Name: model, Version: version})
	switch e := g.fault(err); {
	case err == nil:
		return resp.GetReady(), nil
	case e.Kind == providers.Passed && e.Status == http.StatusNotFound:
		return false, nil
	default:
		return false, e
	}
}
