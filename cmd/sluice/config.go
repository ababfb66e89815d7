package main

import (
	"crypto/sha256"
	"encoding/hex"
	"net"
	"net/netip"
	"strings"
	"time"
)

// Config is the whole configuration, one field per section of config.toml.
// It is immutable once loaded, so any goroutine may read it.
//
// The tags are the documentation: `toml` is the key, `doc` the comment beside
// it in the default file, `min`, `max` and `oneof` what is allowed, `example`
// the TOML value shown where the default cannot be (a name, a URL), `group`
// the keys that exclude each other. Defaults are in the setDefaults methods.
type Config struct {
	Server        Server        `toml:"server" doc:"Where clients and operators reach the gateway."`
	Sizes         Sizes         `toml:"sizes" doc:"Bounds on what is held in memory for one request. Bytes, or with a unit: KiB, MiB, GiB."`
	Timeouts      Timeouts      `toml:"timeouts" doc:"One time limit per phase of an answer; there is none over a whole HTTP exchange. Keys that end in _local are for upstreams with local = true."`
	Heartbeat     Heartbeat     `toml:"heartbeat" doc:"Signs of life towards a client while its answer is silent."`
	Retry         Retry         `toml:"retry" doc:"Further tries of a failed attempt. None is ever made once the client has seen content."`
	Breaker       Breaker       `toml:"breaker" doc:"When a target that fails is left alone (docs/routing.md)."`
	Health        Health        `toml:"health" doc:"How upstreams are asked whether they are well."`
	Shadow        Shadowing     `toml:"shadow" doc:"Bounds on copies of calls, which shadow in [[models]] and [[routes]] ask for."`
	Drain         Drain         `toml:"drain" doc:"What happens between SIGTERM and the end. Kubernetes: terminationGracePeriodSeconds = delay + timeout + 10."`
	Log           Log           `toml:"log" doc:"What is written about the work."`
	CORS          CORS          `toml:"cors" doc:"Browsers on other origins."`
	WebSocket     WebSocket     `toml:"websocket" doc:"Connections that carry many answers side by side: GET /v1/chat/completions and /v1/completions with an upgrade."`
	Demo          Demo          `toml:"demo" doc:"The embedded demo models (demo-echo, demo-slow, demo-tools, ...): try everything without a key."`
	ModelsListing ModelsListing `toml:"models_listing" doc:"How the upstreams are asked which models they have."`
	Redis         Redis         `toml:"redis" restart:"true" doc:"Where limits are counted when several gateways share them (docs/quotas.md). A Redis of their own, with maxmemory-policy noeviction."`
	Data          Data          `toml:"data" restart:"true" doc:"What is kept on this machine."`
	Admin         Admin         `toml:"admin" doc:"The admin API, and who may use it (docs/admin.md)."`
	Auth          Auth          `toml:"auth" restart:"true" doc:"Keys that the gateway issues, beside [[keys]] (docs/keys.md): sluice key create."`
	Keys          []Key         `toml:"keys" doc:"Who may call. With no key at all the gateway listens on loopback only and prints one that it generates."`
	Upstreams     []Upstream    `toml:"upstreams" doc:"The servers that hold the models."`
	Models        []Model       `toml:"models" doc:"Public names for models: aliases, and pools over several upstreams."`
	Routes        []Route       `toml:"routes" doc:"Rules that send calls elsewhere than their model's name does, in order: the first whose conditions all hold decides (docs/routing.md). Names are patterns, in which * stands for any characters; [] is all."`
	Paths         []PathForm    `toml:"paths" doc:"Further paths of the API, for one model each, beside /v1/models/NAME/chat/completions."`

	Limits    []Limit    `toml:"limits" doc:"What callers may take (docs/quotas.md). A request is held against all limits that apply."`
	Prices    []Price    `toml:"prices" doc:"What models cost, for limits in US dollars and for usage records."`
	Estimates []Estimate `toml:"estimates" doc:"How the tokens of a request are estimated before it runs. What it has really used counts at its end."`

	file  string // the file that was read, "" for none
	text  []byte // what stood in it
	reads marks  // other files that were read, such as those of secrets

	unchecked []string          // paths that a closed decoder could say nothing of
	sources   map[string]Source // by path, such as "upstreams[0].base_url"; absent means default
}

// Server is the [server] section.
type Server struct {
	Listen            string   `toml:"listen" restart:"true" doc:"Address of the API, host:port. Anything beyond loopback needs a key: see [[keys]]."`
	AdminListen       string   `toml:"admin_listen" restart:"true" doc:"Address of the admin API, metrics, pprof and health checks; \"\" turns it off. Metrics and health ask for no key: keep it inside a trusted network."`
	Watch             bool     `toml:"watch" doc:"Whether a changed configuration file, or file of a secret or certificate that it names, is put in force at once. SIGHUP does it at any time."`
	TLSCert           string   `toml:"tls_cert" doc:"Certificate chain in PEM. With tls_key set too, the API is served over TLS."`
	TLSKey            string   `toml:"tls_key" doc:"Private key of tls_cert, in PEM."`
	TrustedProxies    []CIDR   `toml:"trusted_proxies" doc:"Networks whose X-Forwarded-For is believed when the address of a client is told."`
	ReadHeaderTimeout Duration `toml:"read_header_timeout" restart:"true" min:"1ms" doc:"Time for a client to send its request headers."`
	IdleTimeout       Duration `toml:"idle_timeout" restart:"true" min:"1ms" doc:"How long an idle client connection is kept."`
	HeapHeadroom      Size     `toml:"heap_headroom" restart:"true" max:"64GiB" doc:"How far a small heap grows before it is collected: memory for CPU. 0 is Go's own way; GOGC in the environment overrides it."`
	MaxHeader         Size     `toml:"max_header" restart:"true" min:"1KiB" max:"16MiB" doc:"Largest request header; beyond it 431."`
}

// Sizes is the [sizes] section.
type Sizes struct {
	Body           Size `toml:"body" min:"1" doc:"Request body; beyond it 413 before the rest is read."`
	BodyVision     Size `toml:"body_vision" min:"1" doc:"Request body where images are allowed."`
	JSONDepth      int  `toml:"json_depth" min:"1" max:"10000" doc:"Nesting of a request's JSON; beyond it 400."`
	UpstreamEvent  Size `toml:"upstream_event" min:"1KiB" doc:"One event of an upstream's stream; beyond it the answer ends with upstream_event_too_large."`
	Preamble       Size `toml:"preamble" doc:"Bytes held back before the first content, while a retry is still possible."`
	PreambleEvents int  `toml:"preamble_events" min:"0" doc:"Events held back before the first content."`
	Answer         Size `toml:"answer" min:"1KiB" doc:"A whole answer that is not streamed."`
}

// Timeouts is the [timeouts] section.
type Timeouts struct {
	Connect                 Duration `toml:"connect" min:"1ms" doc:"Connecting to an upstream, name lookup included."`
	TLS                     Duration `toml:"tls" min:"1ms" doc:"TLS handshake with an upstream."`
	Headers                 Duration `toml:"headers" min:"1ms" doc:"An upstream's response headers."`
	HeadersLocal            Duration `toml:"headers_local" min:"1ms" doc:"The same from a local upstream, which may be loading a model."`
	FirstToken              Duration `toml:"first_token" min:"1ms" doc:"The first token, when no other target is left to try."`
	FirstTokenLocal         Duration `toml:"first_token_local" min:"1ms" doc:"The same from a local upstream."`
	FirstTokenFailover      Duration `toml:"first_token_failover" min:"1ms" doc:"The first token from a hosted upstream, while another target is left to try; four times that when the request asks for reasoning. A model may set its own."`
	FirstTokenFailoverPer1K Duration `toml:"first_token_failover_per_1k" doc:"Added to it for each thousand prompt tokens."`
	BetweenTokens           Duration `toml:"between_tokens" min:"1ms" doc:"Silence between two tokens. Comments (pings) of an upstream are no token."`
	Silence                 Duration `toml:"silence" min:"1ms" doc:"Not one byte from an upstream, pings included."`
	Total                   Duration `toml:"total" min:"1ms" doc:"One answer over all its attempts."`
	TotalLocal              Duration `toml:"total_local" min:"1ms" doc:"The same from a local upstream."`
	RequestBody             Duration `toml:"request_body" restart:"true" min:"1ms" doc:"A client sending its request body."`
	Write                   Duration `toml:"write" min:"1ms" doc:"One write to a client. A client that reads slower is cut off."`
	CommitAfter             Duration `toml:"commit_after" min:"1ms" doc:"How long the status is held back for a retry; then 200 is sent, and heartbeats."`
}

// Heartbeat is the [heartbeat] section.
type Heartbeat struct {
	Interval Duration `toml:"interval" min:"1ms" doc:"Silence towards the client after which a heartbeat is sent."`
}

// Retry is the [retry] section.
type Retry struct {
	Tries           int      `toml:"tries" min:"1" max:"10" doc:"Tries in all; 1 turns retries off."`
	BackoffMin      Duration `toml:"backoff_min" min:"1ms" doc:"Shortest pause before a further try, with full jitter ..."`
	BackoffMax      Duration `toml:"backoff_max" min:"1ms" doc:"... up to this longest one."`
	RetryAfterMax   Duration `toml:"retry_after_max" doc:"Longest Retry-After of an upstream that is waited for; longer: the next target."`
	BudgetPercent   float64  `toml:"budget_percent" min:"0" max:"100" doc:"Retries allowed as a share of calls, in percent ..."`
	BudgetPerSecond float64  `toml:"budget_per_second" min:"0" doc:"... plus so many a second, so that a storm of failures is not doubled."`
}

// Drain is the [drain] section.
type Drain struct {
	Delay   Duration `toml:"delay" doc:"/readyz says 503 while everything is still served, so that the balancer looks away."`
	Timeout Duration `toml:"timeout" doc:"Then running answers may finish for so long; what is left ends with an error event (exit code 3)."`
}

// Log is the [log] section.
type Log struct {
	Level       string `toml:"level" oneof:"debug,info,warn,error" doc:"Least severe message that is written."`
	Format      string `toml:"format" restart:"true" oneof:"text,json" doc:"Form of a line."`
	Access      string `toml:"access" restart:"true" doc:"One line per answer at its end: \"stderr\", \"off\", or the path of a file."`
	AccessQueue int    `toml:"access_queue" restart:"true" min:"1" max:"1048576" doc:"Access lines waiting to be written; beyond it lines are dropped and counted."`
}

// CORS is the [cors] section.
type CORS struct {
	Origins []string `toml:"origins" doc:"Origins that may call, such as \"https://chat.example\"; \"*\" is any, [] is none."`
	MaxAge  Duration `toml:"max_age" doc:"How long a browser may remember the permission."`
}

// WebSocket is the [websocket] section.
type WebSocket struct {
	Origins          []string `toml:"origins" doc:"Pages of other origins that may connect, such as \"https://chat.example\"; pages of the gateway's own origin always may. \"*\" is any."`
	PingInterval     Duration `toml:"ping_interval" min:"100ms" doc:"Pause between two pings to a client ..."`
	PongTimeout      Duration `toml:"pong_timeout" min:"100ms" doc:"... each of which must bring a sign of life in this time."`
	MaxLanes         int      `toml:"max_lanes" min:"1" max:"65536" doc:"Streams (stream_id) that run side by side on one connection; beyond it an error frame."`
	MaxQueued        int      `toml:"max_queued" min:"0" max:"65536" doc:"Requests that wait for their turn on one stream; beyond it an error frame."`
	SendQueue        Size     `toml:"send_queue" min:"64KiB" max:"1GiB" doc:"Bytes that wait for one client. Beyond it answers wait too, and after timeouts.write the connection is closed (1013)."`
	Lifetime         Duration `toml:"lifetime" doc:"Age at which a connection is closed, told a minute before; \"0s\" is no bound."`
	ControlFrame     Size     `toml:"control_frame" min:"1KiB" doc:"A message that carries no request; beyond it the connection is closed (1009)."`
	TicketSecret     Secret   `toml:"ticket_secret" restart:"true" group:"ticket_secret" doc:"What tickets are signed with, the same at all replicas. \"\" makes one up, and tickets are good at one replica only."`
	TicketSecretFile string   `toml:"ticket_secret_file" restart:"true" group:"ticket_secret" example:"\"secrets/ticket.key\"" doc:"Or a file that holds it."`
	TicketLifetime   Duration `toml:"ticket_lifetime" restart:"true" min:"1s" max:"1h" doc:"How long a ticket is good for."`
}

// Demo is the [demo] section.
type Demo struct {
	Enabled    bool     `toml:"enabled" doc:"Whether the demo models are offered."`
	TokenDelay Duration `toml:"token_delay" doc:"Pause between two tokens of a demo model."`
}

// ModelsListing is the [models_listing] section.
type ModelsListing struct {
	Timeout Duration `toml:"timeout" min:"1ms" doc:"A slower upstream does not hold up the list."`
	Refresh Duration `toml:"refresh" min:"1ms" doc:"How long an upstream's list is taken as current."`
}

// Key is one [[keys]] table: a caller and exactly one form of its key.
type Key struct {
	Name    string `toml:"name" example:"\"app\"" doc:"Who calls; shown in logs."`
	Key     Secret `toml:"key" group:"key" example:"\"${APP_KEY}\"" doc:"The key that the caller sends."`
	KeyFile string `toml:"key_file" group:"key" example:"\"secrets/app.key\"" doc:"Or a file that holds it."`
	Hash    Secret `toml:"hash" group:"key" example:"\"sha256:0000000000000000000000000000000000000000000000000000000000000000\"" doc:"Or the SHA-256 of it: printf %s \"$APP_KEY\" | sha256sum"`
	Org     string `toml:"org" doc:"Organisation of the caller, for limits and usage records."`
	Team    string `toml:"team" doc:"Team in the organisation."`
	User    string `toml:"user" doc:"User in the organisation."`

	Groups     []string `toml:"groups" doc:"Groups of the key, for routing."`
	Models     []string `toml:"models" doc:"Models that it is for, by name or pattern (\"gpt-*\"); [] is all."`
	Routes     []string `toml:"routes" doc:"Operations that it is for: chat, completions, embeddings, moderations, responses, passthrough, or the path of one of the latter, such as audio/speech; [] is all."`
	Transports []string `toml:"transports" doc:"How answers may travel: http (whole), sse, ws; [] is all."`

	Limits []KeyLimit `toml:"limits" example:"[{ requests_per_minute = 60, tokens_per_minute = 100_000 }]" doc:"Limits of this key beside those of [[limits]], with the same keys but id and only; the scope is \"key\" or \"key_model\"."`
}

func (k *Key) setDefaults() {
	k.Limits, k.Groups, k.Models, k.Routes, k.Transports = []KeyLimit{}, []string{}, []string{}, []string{}, []string{}
}

// hashPrefix is the one hash that Key.Hash knows.
const hashPrefix = "sha256:"

// Digest gives the SHA-256 of the key, whichever form it was given in, for a
// comparison in constant time. ok is false for a key that did not validate.
func (k Key) Digest() (sum [sha256.Size]byte, ok bool) {
	if k.Key.IsSet() {
		return sha256.Sum256([]byte(k.Key.Reveal())), true
	}
	text, ok := strings.CutPrefix(k.Hash.Reveal(), hashPrefix)
	if !ok || len(text) != hex.EncodedLen(sha256.Size) {
		return sum, false
	}
	_, err := hex.Decode(sum[:], []byte(text))
	return sum, err == nil
}

// Upstream is one [[upstreams]] table. The optional limits are nil when the
// ones of [timeouts] hold.
type Upstream struct {
	Name         string            `toml:"name" example:"\"openai\"" doc:"Name in targets and logs: letters, digits, dot, dash, underscore."`
	Kind         string            `toml:"kind" doc:"Wire protocol: \"openai\" is OpenAI and everything that speaks its API; others are \"anthropic\", \"gemini\", \"kserve\" (Triton too), \"mii\", \"ollama\", \"tgi\"."`
	Profile      string            `toml:"profile" oneof:",mii" doc:"For kind = \"openai\": a server with ways of its own; \"mii\" is DeepSpeed-MII's openai_api_server"`
	BaseURL      string            `toml:"base_url" example:"\"https://api.openai.com/v1\"" doc:"Where its API begins, version included."`
	APIKey       Secret            `toml:"api_key" group:"api_key" example:"\"${OPENAI_API_KEY}\"" doc:"Credential of the gateway at this upstream."`
	APIKeyFile   string            `toml:"api_key_file" group:"api_key" example:"\"secrets/openai.key\"" doc:"Or a file that holds it."`
	Auth         string            `toml:"auth" oneof:"auto,bearer,api-key,none" doc:"How the key is sent, as Authorization: Bearer or in the kind's own header (api-key, x-api-key, x-goog-api-key); \"auto\" as the kind expects it"`
	Organization string            `toml:"organization" doc:"Sent as OpenAI-Organization."`
	Project      string            `toml:"project" doc:"Sent as OpenAI-Project."`
	Headers      map[string]Secret `toml:"headers" doc:"Further request headers. Their values are treated as secrets."`
	Query        map[string]Secret `toml:"query" doc:"Further query parameters, such as api-version. Their values are treated as secrets."`
	Drained      bool              `toml:"drained" doc:"Takes it out of use: no new attempt is made there, and what runs goes on."`
	Local        bool              `toml:"local" doc:"A server of your own that may load a model on demand: the _local limits hold."`
	Models       []string          `toml:"models" doc:"Its models, by name or pattern (\"gpt-*\"); [] asks the upstream."`
	ListModels   bool              `toml:"list_models" doc:"Whether it is asked for its models."`
	Capabilities map[string]bool   `toml:"capabilities" doc:"What its models can do, where that is known better here, such as { vision = false, tools = true }. A request that needs more gets 400, or another target of its model. Names: docs/adapters.md."`
	Unsupported  string            `toml:"unsupported" oneof:"reject,drop" doc:"A parameter that its protocol has no counterpart for, as 400, or left out and named in the header x-sluice-dropped-params"`
	Reasoning    string            `toml:"reasoning" oneof:"reasoning_content,both,inline" doc:"How reasoning is presented: as reasoning_content, also as reasoning, or in a <think> block inside the content"`
	HTTP2        bool              `toml:"http2" doc:"Whether HTTP/2 is spoken where the upstream offers it."`
	MaxConns     int               `toml:"max_conns" min:"0" doc:"Connections at once; 0 is no bound."`
	MaxRunning   int               `toml:"max_concurrent" min:"0" doc:"Attempts of this gateway that run there at once; 0 is no bound. Beyond it other targets are asked, and without one left 429."`
	IdleConns    int               `toml:"idle_conns" min:"0" doc:"Idle connections kept for reuse."`
	IdleTimeout  Duration          `toml:"idle_timeout" min:"1ms" doc:"How long an idle connection is kept."`
	ConnLifetime Duration          `toml:"conn_lifetime" doc:"Age at which a connection is replaced once it is idle; \"0s\" is no bound."`
	Proxy        ProxyURL          `toml:"proxy" doc:"Proxy towards it; \"\" is none. HTTP_PROXY and its like are not heeded."`

	upstreamRouting
	HeadersTimeout       *Duration `toml:"headers_timeout" min:"1ms" example:"\"30s\"" doc:"Instead of timeouts.headers."`
	FirstTokenTimeout    *Duration `toml:"first_token_timeout" min:"1ms" example:"\"2m\"" doc:"Instead of timeouts.first_token."`
	BetweenTokensTimeout *Duration `toml:"between_tokens_timeout" min:"1ms" example:"\"1m\"" doc:"Instead of timeouts.between_tokens."`

	Discovery Discovery `toml:"discovery" doc:"Many servers instead of one, which are found while the gateway runs. In base_url the host is each one's, and the port where its list tells none."`
	OpenAI    OpenAI    `toml:"openai" doc:"For kind = \"openai\"."`
	MII       MII       `toml:"mii" doc:"For kind = \"mii\" (base_url is http://host:port of the load balancer, or of the RESTful gateway)."`
	Ollama    Ollama    `toml:"ollama" doc:"For kind = \"ollama\" (base_url is the root of the server)."`
	TGI       TGI       `toml:"tgi" doc:"For kind = \"tgi\", the native API of Text Generation Inference (base_url is the root of the server)."`
	Anthropic Anthropic `toml:"anthropic" doc:"For kind = \"anthropic\" (base_url is https://api.anthropic.com/v1)."`
	KServe    KServe    `toml:"kserve" doc:"For kind = \"kserve\" (base_url is the root of the server's HTTP port, http://host:8000, or its gRPC port, http://host:8001)."`
	Gemini    Gemini    `toml:"gemini" doc:"For kind = \"gemini\" (base_url is https://generativelanguage.googleapis.com/v1beta, or a publisher at Vertex AI)."`
}

// Model is one [[models]] table: a public name over a pool of targets.
type Model struct {
	Name               string          `toml:"name" example:"\"assistant\"" doc:"The name that callers use."`
	Drained            bool            `toml:"drained" doc:"Takes it out of use: new calls get 503, and what runs goes on."`
	PresentAs          string          `toml:"present_as" doc:"Model name shown in answers; \"\" leaves the upstream's own."`
	Reasoning          string          `toml:"reasoning" oneof:",reasoning_content,both,inline" doc:"How reasoning is presented; \"\" is as each upstream says"`
	FirstTokenFailover *Duration       `toml:"first_token_failover" example:"\"30s\"" doc:"Wait for the first token while another target is left. Unset: 30s and 1s per 1,000 prompt tokens, four times that for reasoning; off for local upstreams."`
	MaxRunning         int             `toml:"max_concurrent" min:"0" doc:"Answers of this gateway that run at once; 0 is no bound. Beyond it they wait in a line, which serves the organisation (or key) next that has had the fewest tokens."`
	Queue              int             `toml:"queue" min:"-1" doc:"Answers that may wait; beyond it 429. 0 is twice max_concurrent, -1 is none."`
	QueueWait          Duration        `toml:"queue_wait" min:"1ms" doc:"How long one may wait; then 429."`
	Capabilities       map[string]bool `toml:"capabilities" doc:"What this model can do, at whatever target, as at an upstream; this goes before what is said there."`
	modelRouting
	Targets []Target `toml:"targets" example:"[{ upstream = \"openai\", model = \"gpt-4o-mini\", weight = 1 }]" doc:"Where its calls go: upstream, model there (\"\" is the same name), weight against the other targets (0: only when no other is left), priority (targets of the lowest number are asked while one of them can be), version (asked for as name@version or by the header x-model-version), max_concurrent, headers_timeout, first_token_timeout, between_tokens_timeout and capabilities, where they are others than the upstream's, price ({ input, cached_input, output }, as in [[prices]]) where it is another than the model's, drained to take it out of use. The upstream \"demo\" is the embedded one."`
}

func (m *Model) setDefaults() {
	m.QueueWait = 5 * second
	m.modelRouting.setDefaults()
}

// Target is one element of a model's targets.
type Target struct {
	Upstream string `toml:"upstream"`
	Model    string `toml:"model"`
	Weight   int    `toml:"weight" min:"0" max:"1000000"`
	Drained  bool   `toml:"drained"`
	targetRouting
}

// demoUpstream is the name by which targets reach the embedded models.
const demoUpstream = "demo"

// defaulter fills a section or one element of an array of tables before what
// the user wrote is put over it.
type defaulter interface{ setDefaults() }

// defaultConfig gives every key at its default.
func defaultConfig() *Config {
	c := &Config{}
	for _, d := range []defaulter{
		&c.Server, &c.Sizes, &c.Timeouts, &c.Heartbeat, &c.Retry, &c.Breaker, &c.Health, &c.Shadow, &c.Drain,
		&c.Log, &c.CORS, &c.WebSocket, &c.Demo, &c.ModelsListing, &c.Redis, &c.Data, &c.Auth, &c.Admin,
	} {
		d.setDefaults()
	}
	return c
}

const (
	ms     = Duration(time.Millisecond)
	second = Duration(time.Second)
	minute = Duration(time.Minute)
	kib    = Size(1 << 10)
	mib    = Size(1 << 20)
)

func (s *Server) setDefaults() {
	*s = Server{
		Listen: "127.0.0.1:8080", AdminListen: "127.0.0.1:8081",
		ReadHeaderTimeout: 10 * second, IdleTimeout: 2 * minute, HeapHeadroom: 16 * mib, MaxHeader: 32 * kib,
	}
}

func (s *Sizes) setDefaults() {
	*s = Sizes{
		Body: 10 * mib, BodyVision: 25 * mib, JSONDepth: 64, UpstreamEvent: 16 * mib,
		Preamble: 256 * kib, PreambleEvents: 64, Answer: 64 * mib,
	}
}

func (t *Timeouts) setDefaults() {
	*t = Timeouts{
		Connect: 2 * second, TLS: 3 * second,
		Headers: 30 * second, HeadersLocal: 10 * minute,
		FirstToken: 2 * minute, FirstTokenLocal: 10 * minute,
		FirstTokenFailover: 30 * second, FirstTokenFailoverPer1K: second,
		BetweenTokens: minute, Silence: 5 * minute,
		Total: 10 * minute, TotalLocal: 30 * minute,
		RequestBody: minute, Write: 10 * second, CommitAfter: 10 * second,
	}
}

func (h *Heartbeat) setDefaults() { h.Interval = 15 * second }

func (r *Retry) setDefaults() {
	*r = Retry{
		Tries: 3, BackoffMin: 50 * ms, BackoffMax: second, RetryAfterMax: 5 * second,
		BudgetPercent: 10, BudgetPerSecond: 3,
	}
}

func (d *Drain) setDefaults() { *d = Drain{Delay: 5 * second, Timeout: 2 * minute} }

func (l *Log) setDefaults() {
	*l = Log{Level: "info", Format: "text", Access: "stderr", AccessQueue: 8192}
}

func (c *CORS) setDefaults() { *c = CORS{Origins: []string{"*"}, MaxAge: 24 * 60 * minute} }

func (w *WebSocket) setDefaults() {
	*w = WebSocket{
		Origins: []string{}, TicketSecret: newSecret(""),
		PingInterval: 20 * second, PongTimeout: 20 * second, MaxLanes: 64, MaxQueued: 8, SendQueue: mib,
		Lifetime: 60 * minute, ControlFrame: 64 * kib, TicketLifetime: 30 * second,
	}
}

func (d *Demo) setDefaults() { *d = Demo{Enabled: true, TokenDelay: 30 * ms} }

func (m *ModelsListing) setDefaults() {
	*m = ModelsListing{Timeout: 3 * second, Refresh: 30 * second}
}

func (u *Upstream) setDefaults() {
	*u = Upstream{
		Kind: "openai", Auth: "auto", Unsupported: "reject", Reasoning: "reasoning_content", ListModels: true, HTTP2: true,
		IdleConns: 256, IdleTimeout: 90 * second,
	}
	u.Discovery.setDefaults()
	u.OpenAI.setDefaults()
	u.MII.setDefaults()
	u.Ollama.setDefaults()
	u.TGI.setDefaults()
	u.Anthropic.setDefaults()
	u.KServe.setDefaults()
	u.Gemini.setDefaults()
}

func (t *Target) setDefaults() { t.Weight = 1 }

// File is the path of the file that was read, "" when the defaults stand alone.
func (c *Config) File() string { return c.file }

// Source tells where the value at a path such as "server.listen" or
// "upstreams[0].base_url" comes from.
func (c *Config) Source(path string) Source { return c.sources[path] }

// ListensBeyondLoopback tells whether another machine can reach the API.
func (c *Config) ListensBeyondLoopback() bool { return !isLoopback(c.Server.Listen) }

// isLoopback tells whether a host:port is reachable from this machine only. A
// name other than localhost counts as reachable from elsewhere.
func isLoopback(hostport string) bool {
	host, _, err := net.SplitHostPort(hostport)
	if err != nil {
		return false
	}
	if strings.EqualFold(host, "localhost") {
		return true
	}
	addr, err := netip.ParseAddr(host)
	return err == nil && addr.Unmap().IsLoopback()
}
