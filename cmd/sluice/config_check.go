package main

import (
	"crypto/tls"
	"encoding/hex"
	"fmt"
	"net"
	"net/textproto"
	"net/url"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// failAt adds a problem at the value of a path, or, when nothing was written
// there, at the nearest table around it. Of one value only the first problem
// is told, and none of a value inside another that is wrong itself.
func (d *decoder) failAt(path, format string, args ...any) {
	atKey := false
	for at := path; ; atKey = true {
		if d.bad[at] {
			return
		}
		if n := d.nodes[at]; n != nil {
			d.fail(n, atKey, path, format, args...)
			return
		}
		at = at[:max(strings.LastIndexAny(at, ".["), 0)]
	}
}

// validate checks what the type of one key alone cannot tell.
func (d *decoder) validate(cfg *Config, kinds []string) {
	keys := len(cfg.Keys)
	if keepsKeys(cfg) {
		keys++ // some may be issued
	}
	d.validateServer(&cfg.Server, keys)
	if cfg.Sizes.BodyVision < cfg.Sizes.Body {
		d.failAt("sizes.body_vision", "must be at least sizes.body (%s)", cfg.Sizes.Body)
	}
	if cfg.Retry.BackoffMax < cfg.Retry.BackoffMin {
		d.failAt("retry.backoff_max", "must be at least retry.backoff_min (%s)", cfg.Retry.BackoffMin)
	}
	if a := cfg.Log.Access; a != "stderr" && a != "off" && !strings.ContainsAny(a, `/\`) {
		d.failAt("log.access", `want "stderr", "off" or the path of a file ("./access.log" beside this one)`)
	} else if strings.ContainsAny(a, `/\`) {
		cfg.Log.Access = d.resolve("log.access", a)
	}
	d.validateOrigins("cors.origins", cfg.CORS.Origins)
	d.validateOrigins("websocket.origins", cfg.WebSocket.Origins)
	if s := cfg.WebSocket.TicketSecret; s.IsSet() && len(s.Reveal()) < minTicketSecret {
		d.failAt(givenAs("websocket", "ticket_secret", cfg.WebSocket.TicketSecretFile), "want at least %d characters: openssl rand -hex 32", minTicketSecret)
	}
	d.validateKeys(cfg.Keys)
	d.validateUpstreams(cfg, kinds)
	d.validateModels(cfg)
	d.validateRouting(cfg)
	d.validateRedis(&cfg.Redis)
	cfg.Data.Dir = d.resolveSet("data.dir", cfg.Data.Dir)
	d.validateAuth(cfg)
	d.validateAdmin(cfg)
	d.validatePrices(cfg)
	d.validateLimits(cfg)
	if !cfg.Demo.Enabled && len(cfg.Upstreams) == 0 && !d.bad["upstreams"] {
		d.failAt("demo.enabled", "there is nothing to serve: add [[upstreams]] or turn the demo models on")
	}
}

// minTicketSecret is the length, in characters, below which a secret could be guessed
// from a ticket.
const minTicketSecret = 32

func (d *decoder) validateOrigins(path string, origins []string) {
	for i, origin := range origins {
		if !isOrigin(origin) {
			d.failAt(fmt.Sprintf("%s[%d]", path, i), `want "*" or an origin such as "https://chat.example"`)
		}
	}
}

func (d *decoder) validateServer(s *Server, keys int) {
	listenOK := d.validateAddress("server.listen", s.Listen)
	if s.AdminListen != "" && d.validateAddress("server.admin_listen", s.AdminListen) &&
		s.AdminListen == s.Listen && !strings.HasSuffix(s.Listen, ":0") {
		d.failAt("server.admin_listen", `must differ from server.listen; "" turns it off`)
	}
	if listenOK && keys == 0 && !isLoopback(s.Listen) && d.nodes["keys"] == nil {
		d.failAt("server.listen", "%s is reachable from other machines, and no key is configured: "+
			"add a [[keys]] table, or listen on 127.0.0.1", s.Listen)
	} else if listenOK && keys == 0 && !isLoopback(s.Listen) && !d.bad["keys"] {
		d.failAt("keys", "add a [[keys]] table: %s is reachable from other machines", s.Listen)
	}
	s.TLSCert = d.resolveSet("server.tls_cert", s.TLSCert)
	s.TLSKey = d.resolveSet("server.tls_key", s.TLSKey)
	switch {
	case s.TLSCert == "" && s.TLSKey == "":
	case s.TLSKey == "":
		d.failAt("server.tls_cert", "server.tls_key is missing")
	case s.TLSCert == "":
		d.failAt("server.tls_key", "server.tls_cert is missing")
	case d.closed:
		d.skip("server.tls_cert")
	default:
		for _, f := range []string{s.TLSCert, s.TLSKey} {
			_, _ = d.readFile("server.tls_cert", f, maxCertificates) // to be watched; what is wrong with it is told below
		}
		if _, err := tls.LoadX509KeyPair(s.TLSCert, s.TLSKey); err != nil {
			d.failAt("server.tls_cert", "cannot load it with server.tls_key: %s", strings.TrimPrefix(err.Error(), "tls: "))
		}
	}
}

// resolveSet resolves a path that may be "".
func (d *decoder) resolveSet(path, file string) string {
	if file == "" {
		return ""
	}
	return d.resolve(path, file)
}

func (d *decoder) validateAddress(path, address string) bool {
	host, port, err := net.SplitHostPort(address)
	_, portErr := strconv.ParseUint(port, 10, 16)
	if err != nil || portErr != nil || strings.ContainsAny(host, "/ @") {
		d.failAt(path, "want host:port, such as 127.0.0.1:8080 or :8080")
		return false
	}
	return true
}

func isOrigin(s string) bool {
	if s == "*" {
		return true
	}
	u, err := url.Parse(s)
	return err == nil && u.Scheme != "" && u.Host != "" && u.User == nil &&
		u.Path == "" && u.RawQuery == "" && !u.ForceQuery && u.Fragment == ""
}

// unique tells about the second of two equal names.
func (d *decoder) unique(seen map[string]string, name, path string) {
	if name == "" {
		return
	}
	if first, ok := seen[name]; ok {
		d.failAt(path, "%q is taken already by %s", name, first)
		return
	}
	seen[name] = path
}

func (d *decoder) validateKeys(keys []Key) {
	names, digests := map[string]string{}, map[[32]byte]string{}
	for i, k := range keys {
		path := fmt.Sprintf("keys[%d]", i)
		d.validateName(path+".name", k.Name)
		d.unique(names, k.Name, path+".name")
		switch k.Name {
		case shadowName:
			d.failAt(path+".name", "%q is what copies of calls are written down for", shadowName)
		case hedgeName:
			d.failAt(path+".name", "%q is what the slower ones of two attempts are written down for", hedgeName)
		}
		for _, n := range []struct{ key, name string }{{"org", k.Org}, {"team", k.Team}, {"user", k.User}} {
			if n.name != "" {
				d.validateName(path+"."+n.key, n.name)
			}
		}
		if !k.Key.IsSet() && k.KeyFile == "" && !k.Hash.IsSet() {
			if !d.bad[path+".key"] && !d.bad[path+".hash"] && !d.bad[path+".key_file"] {
				d.failAt(path+".key", "give one of key, key_file and hash")
			}
			continue
		}
		if k.Hash.IsSet() && !isHash(k.Hash.Reveal()) {
			d.failAt(path+".hash", "want %s and 64 hexadecimal digits", hashPrefix)
		}
		if v := k.Key.Reveal(); strings.ContainsFunc(v, notHeaderSafe) {
			d.failAt(givenAs(path, "key", k.KeyFile), "a key has no spaces, control or non-ASCII characters")
		}
		if sum, ok := k.Digest(); ok {
			if first, taken := digests[sum]; taken {
				d.failAt(path, "the same key as %s", first)
			}
			digests[sum] = path
		}
	}
}

// givenAs is the path of the key that a secret was given by.
func givenAs(table, name, file string) string {
	if file != "" {
		name += "_file"
	}
	return table + "." + name
}

func isHash(s string) bool {
	digits, ok := strings.CutPrefix(s, hashPrefix)
	_, err := hex.DecodeString(digits)
	return ok && err == nil && len(digits) == 64
}

// notHeaderSafe finds what a credential in a header cannot have.
func notHeaderSafe(r rune) bool { return r <= ' ' || r >= 0x7f }

var plainName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$`)

func (d *decoder) validateName(path, name string) {
	switch {
	case name == "":
		d.failAt(path, "a name is required")
	case !plainName.MatchString(name):
		d.failAt(path, "want up to 64 letters, digits, dots, dashes and underscores")
	}
}

func (d *decoder) validateUpstreams(cfg *Config, kinds []string) {
	names := map[string]string{}
	for i := range cfg.Upstreams {
		u, at := &cfg.Upstreams[i], fmt.Sprintf("upstreams[%d]", i)
		d.validateName(at+".name", u.Name)
		d.unique(names, u.Name, at+".name")
		if u.Name == demoUpstream {
			d.failAt(at+".name", "%q is the embedded upstream", demoUpstream)
		}
		if err := (field{oneof: kinds}).checkString(u.Kind); err != nil {
			d.failAt(at+".kind", "%q: %s", u.Kind, err)
		}
		d.validateBaseURL(at+".base_url", u.BaseURL)
		d.validateHost(at+".base_url", u)
		if u.Auth == "none" && u.APIKey.IsSet() {
			d.failAt(at+".auth", `a key is given that auth = "none" would not send`)
		}
		if strings.ContainsFunc(u.APIKey.Reveal(), notHeaderSafe) {
			d.failAt(givenAs(at, "api_key", u.APIKeyFile), "a key has no spaces, control or non-ASCII characters")
		}
		d.validateDiscovery(at, u)
		d.validateOpenAI(at, u)
		if u.Kind == "mii" {
			d.validateMII(at, u)
		}
		if u.Kind == "kserve" {
			d.validateKServe(at, u)
		}
		if u.Kind == "tgi" {
			d.validateTGI(at, u)
		}
		for name, value := range u.Headers {
			d.validateHeader(join(at+".headers", name), name, value)
		}
		d.validateCapabilities(at+".capabilities", u.Capabilities)
		for j, pattern := range u.Models {
			if _, err := path.Match(pattern, ""); err != nil || pattern == "" {
				d.failAt(fmt.Sprintf("%s.models[%d]", at, j), `want a model's name or a pattern such as "gpt-*"`)
			}
		}
		if len(u.Models) == 0 && !u.ListModels {
			d.failAt(at+".models", "name its models, or let list_models ask for them")
		}
	}
}

// reservedHeaders are set by the adapter or belong to the connection.
var reservedHeaders = []string{
	"Authorization", "Connection", "Content-Length", "Content-Type", "Host", "Transfer-Encoding", "Upgrade",
}

func (d *decoder) validateHeader(path, name string, value Secret) {
	canonical := textproto.CanonicalMIMEHeaderKey(name)
	switch {
	case name == "" || strings.ContainsFunc(name, notTokenRune):
		d.failAt(path, "this is no name of a header")
	case canonical == "Authorization":
		d.failAt(path, "give the credential as api_key")
	case slices.Contains(reservedHeaders, canonical):
		d.failAt(path, "this header is the gateway's own")
	case strings.ContainsFunc(value.Reveal(), func(r rune) bool { return r < ' ' && r != '\t' || r == 0x7f }):
		d.failAt(path, "a header has no control characters")
	}
}

// notTokenRune finds what RFC 9110 section 5.6.2 keeps out of header names.
func notTokenRune(r rune) bool {
	return r <= ' ' || r >= 0x7f || strings.ContainsRune(`"(),/:;<=>?@[\]{}`, r)
}

func (d *decoder) validateBaseURL(path, base string) {
	u, err := url.Parse(base)
	switch {
	case base == "":
		d.failAt(path, `where the API begins is required, such as "https://api.openai.com/v1"`)
	case err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "":
		d.failAt(path, `want an absolute URL such as "https://api.openai.com/v1" (http or https)`)
	case u.User != nil:
		d.hide(path)
		d.failAt(path, "give the credential as api_key, not in the URL")
	case u.RawQuery != "" || u.ForceQuery:
		d.hide(path)
		d.failAt(path, "give the parameters as query = { ... }, not in the URL")
	case u.Fragment != "":
		d.failAt(path, "a base URL has no #fragment")
	}
}

// apiPaths are where OpenAI's API begins at hosts that do not have it at their root.
var apiPaths = map[string]string{
	"api.openai.com": "/v1", "api.anthropic.com": "/v1", "generativelanguage.googleapis.com": "/v1beta/openai",
	"api.groq.com": "/openai/v1", "openrouter.ai": "/api/v1",
}

// validateHost knows of some hosts where their API begins. Other servers may have it at
// their root; adapters for other protocols add the usual path themselves.
func (d *decoder) validateHost(path string, u *Upstream) {
	base, err := url.Parse(u.BaseURL)
	if err != nil || u.Kind != "openai" {
		return
	}
	if want, known := apiPaths[base.Hostname()]; known && strings.Trim(base.Path, "/") == "" {
		d.failAt(path, "the API begins at https://%s%s there", base.Hostname(), want)
	}
}

// hide keeps a value out of excerpts that turned out to hold more than its
// key lets expect.
func (d *decoder) hide(path string) {
	if n := d.nodes[path]; n != nil {
		n.shown = false
	}
}

func (d *decoder) validateModels(cfg *Config) {
	names, upstreams := map[string]string{}, []string{}
	for _, u := range cfg.Upstreams {
		upstreams = append(upstreams, u.Name)
	}
	if cfg.Demo.Enabled {
		upstreams = append(upstreams, demoUpstream)
	}
	for i := range cfg.Models {
		m, at := &cfg.Models[i], fmt.Sprintf("models[%d]", i)
		switch {
		case m.Name == "":
			d.failAt(at+".name", "a name is required")
		case len(m.Name) > 256 || strings.ContainsFunc(m.Name, notHeaderSafe):
			d.failAt(at+".name", "want up to 256 visible ASCII characters")
		}
		d.unique(names, m.Name, at+".name")
		d.validateCapabilities(at+".capabilities", m.Capabilities)
		if len(m.Targets) == 0 {
			d.failAt(at+".targets", "at least one target is required")
			continue
		}
		d.validateTargets(at+".targets", m.Targets, upstreams)
	}
}

func (d *decoder) validateTargets(path string, targets []Target, upstreams []string) {
	weight := 0
	for i, t := range targets {
		weight += t.Weight
		at := fmt.Sprintf("%s[%d].upstream", path, i)
		switch {
		case t.Upstream == "":
			d.failAt(at, "an upstream is required")
		case !slices.Contains(upstreams, t.Upstream):
			msg := fmt.Sprintf("there is no upstream %q", t.Upstream)
			if s := nearest(t.Upstream, upstreams); s != "" {
				msg += fmt.Sprintf("; did you mean %q?", s)
			}
			d.failAt(at, "%s", msg)
		}
	}
	if weight <= 0 {
		d.failAt(path, "the weights must not all be 0")
	}
}
