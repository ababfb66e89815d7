package main

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"strings"
)

// defaultFile is read when no file is named and it exists.
const defaultFile = "config.toml"

// maxProblems bounds what one ConfigError tells.
const maxProblems = 50

// loadOptions say where configuration comes from.
type loadOptions struct {
	Path    string    // "" is ./config.toml if it exists, else the defaults alone
	Environ []string  // as os.Environ gives it
	Flags   []setting // strongest, later ones over earlier ones
	Strict  bool      // unknown SLUICE_ variables are problems, not warnings
	Kinds   []string  // upstream kinds that there are adapters for
	Closed  bool      // the text is from elsewhere: no file and no variable is looked at
}

// loadConfig reads, overrides, expands, decodes and validates. err is a
// *ConfigError with every problem found. warnings name environment variables
// that look like ours and are not.
func loadConfig(o loadOptions) (cfg *Config, warnings []string, err error) {
	doc, err := o.read()
	if err != nil {
		return nil, nil, err
	}
	return loadDocument(doc, o)
}

// read reads the file; nil for none.
func (o loadOptions) read() (*document, error) {
	doc, problem := readDocument(o.Path)
	if problem != nil {
		return nil, &ConfigError{[]Problem{*problem}}
	}
	return doc, nil
}

// loadDocument is loadConfig for a file that is in memory, nil for none.
func loadDocument(doc *document, o loadOptions) (cfg *Config, warnings []string, err error) {
	root, problem := newTable(Source{}, span{}), (*Problem)(nil)
	if doc != nil {
		if root, problem = parseDocument(doc); problem != nil {
			return nil, nil, &ConfigError{[]Problem{*problem}}
		}
	}
	d := &decoder{
		doc: doc, lookup: lookupIn(o.Environ), nodes: map[string]*node{"": root},
		bad: map[string]bool{}, sources: map[string]Source{}, used: map[string]bool{}, closed: o.Closed,
	}
	unknown := d.override(root, append(envSettings(o.Environ), o.Flags...))
	cfg = d.config(root, o.Kinds)
	cfg.reads, cfg.unchecked = d.reads, d.unchecked
	for _, p := range unknown {
		switch {
		case d.used[p.Source.Name]:
		case o.Strict:
			d.problems = append(d.problems, p)
		default:
			warnings = append(warnings, p.String())
		}
	}
	if len(d.problems) > 0 {
		return nil, warnings, d.configError()
	}
	return cfg, warnings, nil
}

// config decodes and validates the finished tree.
func (d *decoder) config(root *node, kinds []string) *Config {
	cfg := defaultConfig()
	cfg.sources = d.sources
	if d.doc != nil {
		cfg.file, cfg.text = d.doc.name, d.doc.data
	}
	d.table(root, reflect.ValueOf(cfg).Elem(), "")
	d.readSecretFiles(cfg)
	d.validate(cfg, kinds)
	return cfg
}

// readDocument reads the file; no document and no problem means that there is
// none and that none was asked for.
func readDocument(path string) (*document, *Problem) {
	optional := path == ""
	if optional {
		path = defaultFile
	}
	f, err := os.Open(path)
	if optional && errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	var data []byte
	if err == nil {
		defer f.Close()
		data, err = io.ReadAll(io.LimitReader(f, maxDocument+1))
	}
	if err == nil && len(data) > maxDocument {
		err = fmt.Errorf("larger than %s", Size(maxDocument))
	}
	if err != nil {
		return nil, &Problem{Source: Source{Origin: FromFile, Name: path}, Msg: "cannot read the configuration: " + reason(err)}
	}
	return &document{name: path, data: data}, nil
}

// reason takes the operation and the path off a file error: the message that
// it goes into names them already.
func reason(err error) string {
	var pe *fs.PathError
	if errors.As(err, &pe) {
		return pe.Err.Error()
	}
	return err.Error()
}

func lookupIn(environ []string) func(string) (string, bool) {
	vars := make(map[string]string, len(environ))
	for _, kv := range environ {
		name, value, _ := strings.Cut(kv, "=")
		vars[name] = value
	}
	return func(name string) (string, bool) {
		v, ok := vars[name]
		return v, ok
	}
}

// override applies the environment and flags to the tree. Environment
// variables that lead nowhere come back, to be told as the caller decides.
func (d *decoder) override(root *node, settings []setting) (unknown []Problem) {
	for _, s := range settings {
		err := s.apply(root)
		if err == nil {
			continue
		}
		p := Problem{Source: s.src, Path: s.name(), Msg: err.Error()}
		if errors.Is(err, errUnknownKey) && s.src.Origin == FromEnv {
			unknown = append(unknown, p)
			continue
		}
		d.problems = append(d.problems, p)
	}
	return unknown
}

// configError draws the excerpts, now that it is known what may be shown.
func (d *decoder) configError() *ConfigError {
	sortProblems(d.problems)
	if extra := len(d.problems) - maxProblems; extra > 0 {
		d.problems = d.problems[:maxProblems]
		defer func() { d.problems[maxProblems-1].Msg += fmt.Sprintf(" (and %d more problems)", extra) }()
	}
	for i := range d.problems {
		if p := &d.problems[i]; p.Source.Origin == FromFile && p.Source.Line > 0 {
			p.excerpt, _ = d.doc.excerpt(p.at)
		}
	}
	return &ConfigError{d.problems}
}

// maxSecretFile bounds a file that holds one secret.
const maxSecretFile = 64 << 10

// readSecretFiles fills secrets from their *_file twins.
func (d *decoder) readSecretFiles(cfg *Config) {
	for i := range cfg.Keys {
		k, path := &cfg.Keys[i], fmt.Sprintf("keys[%d]", i)
		d.exclusive(path, k.Key.IsSet(), "key", k.KeyFile != "", "key_file")
		d.exclusive(path, k.Key.IsSet(), "key", k.Hash.IsSet(), "hash")
		d.exclusive(path, k.KeyFile != "", "key_file", k.Hash.IsSet(), "hash")
		d.secretFile(path+".key_file", k.KeyFile, &k.Key)
	}
	for i := range cfg.Upstreams {
		u, path := &cfg.Upstreams[i], fmt.Sprintf("upstreams[%d]", i)
		d.exclusive(path, u.APIKey.IsSet(), "api_key", u.APIKeyFile != "", "api_key_file")
		d.secretFile(path+".api_key_file", u.APIKeyFile, &u.APIKey)
	}
	w := &cfg.WebSocket
	d.exclusive("websocket", w.TicketSecret.IsSet(), "ticket_secret", w.TicketSecretFile != "", "ticket_secret_file")
	d.secretFile("websocket.ticket_secret_file", w.TicketSecretFile, &w.TicketSecret)
	d.readRedisSecrets(&cfg.Redis)
	d.readAuthSecrets(&cfg.Auth)
	d.readAdminSecrets(&cfg.Admin)
}

// exclusive complains when two forms of one thing are both given.
func (d *decoder) exclusive(path string, a bool, aName string, b bool, bName string) {
	if a && b {
		d.failAt(path+"."+bName, "%s and %s are both given; keep one", aName, bName)
	}
}

// secretFile reads one secret without the newline that editors leave.
func (d *decoder) secretFile(path, file string, into *Secret) {
	if file == "" || d.bad[path] {
		return
	}
	data, err := d.readFile(path, d.resolve(path, file), maxSecretFile)
	if err != nil {
		d.failAt(path, "cannot read it: %s", reason(err))
		return
	}
	data = bytes.TrimSuffix(bytes.TrimSuffix(data, []byte("\n")), []byte("\r"))
	if len(data) == 0 {
		d.failAt(path, "the file is empty")
		return
	}
	*into = newSecret(string(data))
}

// maxTemplate bounds a file with a chat template.
const maxTemplate = 1 << 20

// readFile reads the file that the value at a path names, resolved. A decoder that may not read files
// gives an error, and nothing more is told of that path.
func (d *decoder) readFile(path, file string, limit int64) ([]byte, error) {
	if d.closed {
		d.skip(path)
		return nil, errClosed
	}
	text, err := readBounded(file, limit)
	if d.reads == nil {
		d.reads = marks{}
	}
	if d.reads[file] = [sha256.Size]byte{}; err == nil {
		d.reads[file] = markOf(text)
	}
	return text, err
}

var errClosed = errors.New("files and the environment are not looked at")

// skip leaves the value at a path unchecked.
func (d *decoder) skip(path string) {
	d.bad[path] = true
	d.unchecked = append(d.unchecked, path)
}

func readBounded(path string, limit int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err == nil && int64(len(data)) > limit {
		err = fmt.Errorf("larger than %s", Size(limit))
	}
	return data, err
}

// resolve makes a path of the file relative to that file; paths from the
// environment and flags are relative to the working directory.
func (d *decoder) resolve(path, file string) string {
	if d.sources[path].Origin != FromFile || filepath.IsAbs(file) {
		return file
	}
	return filepath.Join(filepath.Dir(d.doc.name), file)
}
