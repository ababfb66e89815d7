package admin

import (
	"cmp"
	"context"
	"errors"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"sluice/handlers/auth"
	"sluice/handlers/auth/store"
)

// KeyStore is where issued keys are; *store.Store is one.
type KeyStore interface {
	List(ctx context.Context, f store.Filter) (store.Page, error)
	Get(ctx context.Context, id auth.KeyID) (*store.Key, error)
	Create(ctx context.Context, fields store.Key) (auth.Token, *store.Key, error)
	Update(ctx context.Context, id auth.KeyID, version uint64, change func(*store.Key) error) (*store.Key, error)
	Rotate(ctx context.Context, id auth.KeyID, version uint64, overlap time.Duration) (auth.Token, *store.Key, error)
	Delete(ctx context.Context, id auth.KeyID, version uint64) (*store.Key, error)
	Export(ctx context.Context, w io.Writer) error
	Import(ctx context.Context, r io.Reader, replace bool) (store.Imported, error)
}

// Keys are what the routes of keys need.
type Keys struct {
	Store KeyStore // nil: no keys are issued
	Off   string   // why not
	// Static lists the keys of the configuration, which are shown and cannot be edited here.
	Static func() []StaticKey
	// Operations are the names that patterns of routes are held against.
	Operations []string
	// Report is what GET /v1/key says of a caller. Errors are faults that BadQuery names, or
	// mean that it cannot be told now.
	Report func(ctx context.Context, who auth.Principal, query url.Values) (any, error)
	// BadQuery says which parameter an error of Report is about, and what is wrong; ok is false
	// for other errors.
	BadQuery func(error) (param, message string, ok bool)
}

// StaticKey is a key of the configuration.
type StaticKey struct {
	Who    auth.Principal
	Source string // where it stands
}

func (s *server) keyRoutes() []route {
	k := &s.opt.Keys
	return []route{
		{method: http.MethodGet, path: "/keys", role: viewer, query: []string{"limit", "after", "org", "team", "user", "q", "deleted"}, handle: k.list},
		{method: http.MethodPost, path: "/keys", role: admin, audit: true, handle: k.create},
		{method: http.MethodGet, path: "/keys/export", role: admin, audit: true, handle: k.export},
		{method: http.MethodPost, path: "/keys/import", role: admin, audit: true, query: []string{"replace"}, handle: k.load},
		{method: http.MethodGet, path: "/keys/{id}", role: viewer, handle: k.get},
		{method: http.MethodPatch, path: "/keys/{id}", role: admin, audit: true, handle: k.edit},
		{method: http.MethodDelete, path: "/keys/{id}", role: admin, audit: true, handle: k.remove},
		{method: http.MethodPost, path: "/keys/{id}/rotate", role: admin, audit: true, handle: k.rotate},
		{method: http.MethodPost, path: "/keys/{id}/disable", role: admin, audit: true, handle: func(c *call) error { return k.disable(c, true) }},
		{method: http.MethodPost, path: "/keys/{id}/enable", role: admin, audit: true, handle: func(c *call) error { return k.disable(c, false) }},
		{method: http.MethodGet, path: "/keys/{id}/report", role: viewer, query: []string{"start", "end", "group_by", "model"}, handle: k.report},
	}
}

const (
	usualKeys = 100
	mostKeys  = 1000
)

// ready says why there are no issued keys.
func (k *Keys) ready() error {
	if k.Store == nil {
		return &fault{status: http.StatusConflict, code: "keys_off", message: "No keys are issued here: " + cmp.Or(k.Off, "there is no store for them") + "."}
	}
	return nil
}

// list shows the keys of the configuration on the first page, then issued ones, newest
// first.
func (k *Keys) list(c *call) error {
	f := store.Filter{Org: c.query("org"), Team: c.query("team"), User: c.query("user"), Text: c.query("q"), After: c.query("after")}
	var err error
	if f.Limit, err = c.limit(usualKeys, mostKeys); err != nil {
		return err
	}
	if f.Deleted, err = c.flag("deleted"); err != nil {
		return err
	}
	out := list[keyJSON]{Data: []keyJSON{}}
	if f.After == "" && k.Static != nil {
		for _, one := range k.Static() {
			if matches(&f, &one.Who) {
				out.Data = append(out.Data, staticJSON(&one))
			}
		}
	}
	if k.Store != nil {
		page, err := k.Store.List(c.r.Context(), f)
		if err != nil {
			return keyFault(err)
		}
		for _, one := range page.Keys {
			out.Data = append(out.Data, storedJSON(one, c.s.opt.Now()))
		}
		out.Next = page.Next
	}
	return c.reply(http.StatusOK, out)
}

func matches(f *store.Filter, who *auth.Principal) bool {
	return (f.Org == "" || f.Org == who.Org) && (f.Team == "" || f.Team == who.Team) && (f.User == "" || f.User == who.User) &&
		strings.Contains(strings.ToLower(who.Key), strings.ToLower(f.Text))
}

// flag reads a parameter that is true or false.
func (c *call) flag(name string) (bool, error) {
	switch c.query(name) {
	case "", "false":
		return false, nil
	case "true":
		return true, nil
	default:
		return false, badField(name, "%s is true or false.", name)
	}
}

func (k *Keys) create(c *call) error {
	if err := k.ready(); err != nil {
		return err
	}
	var body keyEdit
	if err := c.read(&body); err != nil {
		return err
	}
	var fields store.Key
	if err := body.apply(k, &fields); err != nil {
		return err
	}
	if !fields.Expires.IsZero() && !fields.Expires.After(c.s.opt.Now()) {
		return badField("expires_at", "expires_at has passed.")
	}
	token, made, err := k.Store.Create(c.r.Context(), fields)
	if err != nil {
		return keyFault(err)
	}
	return k.told(c, http.StatusCreated, nil, made, &token)
}

// told answers with a key as it is now, and with its secret when it has a new one.
func (k *Keys) told(c *call, status int, before, after *store.Key, token *auth.Token) error {
	now := c.s.opt.Now()
	is := storedJSON(after, now)
	var was any
	if before != nil {
		was = storedJSON(before, now)
	}
	c.changed("key "+is.ID, was, is)
	c.etag(strconv.FormatUint(after.Version, 10))
	if token == nil {
		return c.reply(status, is)
	}
	return c.reply(status, struct {
		keyJSON
		Secret string `json:"secret"`
	}{is, token.Reveal()})
}

// find is the issued key that the path names; it refuses one of the configuration by its
// name.
func (k *Keys) find(c *call) (auth.KeyID, error) {
	id, err := auth.ParseKeyID(strings.TrimPrefix(c.path("id"), "sk-slc-"))
	if one := k.static(c.path("id")); one != nil {
		return id, &fault{status: http.StatusConflict, code: "read_only", message: "This key stands in the configuration (" + one.Source + ") and is edited there."}
	}
	if readyErr := k.ready(); readyErr != nil {
		return id, readyErr
	}
	if err != nil {
		return id, noKey()
	}
	return id, nil
}

func noKey() error { return notFound("There is no such key.") }

func (k *Keys) static(name string) *StaticKey {
	if k.Static == nil {
		return nil
	}
	all := k.Static()
	i := slices.IndexFunc(all, func(s StaticKey) bool { return s.Who.Key == name })
	if i < 0 {
		return nil
	}
	return &all[i]
}

// version is the one that If-Match names; 0: whatever there is.
func (c *call) version() (uint64, error) {
	text, given, err := c.ifMatch()
	if err != nil || !given {
		return 0, err
	}
	n, err := strconv.ParseUint(text, 10, 64)
	if err != nil || n == 0 {
		return 0, conflict("If-Match names no version of this key; read it again.")
	}
	return n, nil
}

// target is what the edits begin with: the key, the version that is edited, and how it is.
func (k *Keys) target(c *call) (id auth.KeyID, version uint64, was *store.Key, err error) {
	if id, err = k.find(c); err != nil {
		return id, 0, nil, err
	}
	if version, err = c.version(); err != nil {
		return id, 0, nil, err
	}
	if was, err = k.Store.Get(c.r.Context(), id); err != nil {
		return id, 0, nil, keyFault(err)
	}
	return id, version, was, nil
}

func (k *Keys) get(c *call) error {
	if one := k.static(c.path("id")); one != nil {
		return c.reply(http.StatusOK, staticJSON(one))
	}
	_, _, found, err := k.target(c)
	if err != nil {
		return err
	}
	c.etag(strconv.FormatUint(found.Version, 10))
	return c.reply(http.StatusOK, storedJSON(found, c.s.opt.Now()))
}

func (k *Keys) edit(c *call) error {
	var body keyEdit
	if err := c.read(&body); err != nil {
		return err
	}
	return k.update(c, func(key *store.Key) error { return body.apply(k, key) })
}

func (k *Keys) disable(c *call, off bool) error {
	return k.update(c, func(key *store.Key) error { key.Disabled = off; return nil })
}

func (k *Keys) update(c *call, change func(*store.Key) error) error {
	id, version, was, err := k.target(c)
	if err != nil {
		return err
	}
	is, err := k.Store.Update(c.r.Context(), id, version, change)
	if err != nil {
		return keyFault(err)
	}
	return k.told(c, http.StatusOK, was, is, nil)
}

func (k *Keys) remove(c *call) error {
	id, version, was, err := k.target(c)
	if err != nil {
		return err
	}
	is, err := k.Store.Delete(c.r.Context(), id, version)
	if err != nil {
		return keyFault(err)
	}
	return k.told(c, http.StatusOK, was, is, nil)
}

func (k *Keys) rotate(c *call) error {
	var body struct {
		Overlap int64 `json:"overlap_seconds"`
	}
	if err := c.read(&body); err != nil {
		return err
	}
	if body.Overlap < 0 || body.Overlap > int64(store.MaxOverlap/time.Second) {
		return badField("overlap_seconds", "overlap_seconds is between 0 and %d (%d days).", int64(store.MaxOverlap/time.Second), int64(store.MaxOverlap/(24*time.Hour)))
	}
	id, version, was, err := k.target(c)
	if err != nil {
		return err
	}
	token, is, err := k.Store.Rotate(c.r.Context(), id, version, time.Duration(body.Overlap)*time.Second)
	if err != nil {
		return keyFault(err)
	}
	return k.told(c, http.StatusOK, was, is, &token)
}

// report is what the key's own caller sees at GET /v1/key.
func (k *Keys) report(c *call) error {
	if k.Report == nil {
		return notFound("There are no reports here.")
	}
	var who auth.Principal
	if one := k.static(c.path("id")); one != nil {
		who = one.Who
	} else {
		_, _, found, err := k.target(c)
		if err != nil {
			return err
		}
		if who = found.Principal(); who.Key == "" {
			return keyFault(store.ErrNewer)
		}
	}
	report, err := k.Report(c.r.Context(), who, c.r.URL.Query())
	if err != nil {
		if param, message, ok := k.BadQuery(err); ok {
			return badField(param, "%s", message)
		}
		return unavailable("The levels and records cannot be read now.")
	}
	return c.reply(http.StatusOK, report)
}

// keyFault tells what the store said.
func keyFault(err error) error {
	var f *fault
	var wrong store.Problems
	switch {
	case errors.As(err, &f):
		return f
	case errors.As(err, &wrong):
		return badField(wrong[0].Field, "%s", strings.ReplaceAll(wrong.Error(), "\n", "; "))
	case errors.Is(err, store.ErrUnknown):
		return noKey()
	case errors.Is(err, store.ErrConflict):
		return conflict("The key was edited meanwhile; read it again.")
	case errors.Is(err, store.ErrCursor):
		return badField("after", "The list cannot go on there; begin it again.")
	case errors.Is(err, store.ErrFull):
		return &fault{status: http.StatusConflict, code: "too_many_keys", message: "There are as many keys as may be; delete some."}
	case errors.Is(err, store.ErrNewer):
		return &fault{status: http.StatusConflict, code: "newer_version", message: "The key was written by a newer version of sluice: this one can only delete it."}
	case errors.Is(err, store.ErrPepper):
		return &fault{status: http.StatusConflict, code: "another_pepper", message: "The keys were made with another auth.pepper than this gateway's."}
	case errors.Is(err, store.ErrUnavailable):
		return unavailable("The store of the keys cannot be reached now; an edit may have been done or not.")
	default:
		return err
	}
}
