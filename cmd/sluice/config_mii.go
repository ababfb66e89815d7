package main

import (
	"net/url"
	"slices"
	"strings"

	"sluice/providers/kit"
)

// MII is what an upstream of kind "mii" has beyond others.
type MII struct {
	Transport         string   `toml:"transport" oneof:"grpc,rest" doc:"The load balancer's gRPC port, or the RESTful gateway, which cannot stream"`
	Generation        string   `toml:"generation" oneof:"current,0.1,0.0,legacy" doc:"Version of the protocol: current is 0.1.2 and later, 0.1 is 0.1.0 and 0.1.1, legacy is mii.legacy. 0.0 and legacy cannot stream and count no tokens"`
	Deployment        string   `toml:"deployment" example:"\"mistralai/Mistral-7B-v0.1-mii-deployment\"" doc:"Name of the deployment in the path of the RESTful gateway."`
	Template          string   `toml:"template" doc:"How conversations become prompts: chatml, llama2, llama3, mistral, alpaca, vicuna, raw, or the path of a file in the language of Go's text/template (docs/adapters.md)."`
	TemplateStops     []string `toml:"template_stops" doc:"Marks that end a turn in a template of your own: nothing behind one is answered, and no message may contain one."`
	EOS               []string `toml:"eos" doc:"What the model ends with, which the server shows in streams and which is cut off; [] is what the models of all built-in templates are known for."`
	Think             string   `toml:"think" oneof:"off,split,begun" doc:"Whether <think> blocks are told apart as reasoning; begun: the template opens the block"`
	MaxNewTokens      int      `toml:"max_new_tokens" min:"1" doc:"Bound on an answer where the caller sets none ..."`
	MaxNewTokensLimit int      `toml:"max_new_tokens_limit" min:"1" doc:"... and on what a caller may ask for. An answer whose caller has gone is generated up to its bound."`
	Temperature       float64  `toml:"temperature" min:"0.01" max:"2" doc:"Sent where the caller says nothing, for each call must have one ..."`
	TopP              float64  `toml:"top_p" min:"0.01" max:"1" doc:"... and this."`
	MaxPrompt         Size     `toml:"max_prompt" doc:"Longest prompt, in bytes; beyond it 400. One that the engine has no room for would end the deployment's work. 0 is no bound."`
	MaxCalls          int      `toml:"max_calls" min:"0" doc:"Calls at once; beyond it 503. The server has 256 places and lets later calls wait without a word. 0 is no bound."`

	template *kit.Template // what Template names, once validated
}

func (m *MII) setDefaults() {
	*m = MII{
		Transport: "grpc", Generation: "current", Template: "chatml", TemplateStops: []string{}, EOS: []string{}, Think: defaultThink,
		MaxNewTokens: 1024, MaxNewTokensLimit: 4096, Temperature: 1, TopP: 1, MaxPrompt: 128 * kib, MaxCalls: 256,
	}
}

// endMarks are what is cut off the end of streams. The template says how conversations are
// written, and not what the model behind them ends with: legacy completions have no use of
// it, and its default is one for many models.
func (m *MII) endMarks() []string {
	if len(m.EOS) > 0 {
		return m.EOS
	}
	return knownEOS()
}

// validateMII checks what an upstream of kind "mii" needs, and reads its template.
func (d *decoder) validateMII(at string, u *Upstream) {
	m := &u.MII
	if len(u.Models) == 0 && !d.bad[at+".models"] {
		d.failAt(at+".models", "name the model that the deployment serves: its protocol cannot list it")
	}
	base, err := url.Parse(u.BaseURL)
	switch {
	case m.Transport == "rest" && m.Deployment == "":
		d.failAt(at+".mii.deployment", "the RESTful gateway needs the name of the deployment")
	case slices.ContainsFunc(strings.Split(m.Deployment, "/"), func(part string) bool { return part == "." || part == ".." }):
		d.failAt(at+".mii.deployment", "a name does not lead out of its folder")
	case m.Transport == "grpc" && err == nil && strings.Trim(base.Path, "/") != "":
		d.failAt(at+".base_url", "a gRPC server has no path: want http://host:port, or https for TLS")
	case m.Transport == "grpc" && (u.Proxy.URL() != nil || len(u.Query) > 0):
		d.failAt(at, "proxy and query have no meaning for gRPC")
	}
	if m.MaxNewTokens > m.MaxNewTokensLimit {
		d.failAt(at+".mii.max_new_tokens", "must be at most max_new_tokens_limit (%d)", m.MaxNewTokensLimit)
	}
	d.loadTemplate(at+".mii.template", m)
}

func (d *decoder) loadTemplate(path string, m *MII) {
	var err error
	if !strings.ContainsAny(m.Template, `/\.`) {
		if m.template, err = kit.NamedTemplate(m.Template); err != nil {
			d.failAt(path, "%s", err)
		}
		return
	}
	text, err := d.readFile(path, d.resolve(path, m.Template), maxTemplate)
	if err == nil {
		m.template, err = kit.ParseTemplate(m.Template, string(text), m.TemplateStops)
	}
	if err != nil {
		d.failAt(path, "%s", err)
	}
}
