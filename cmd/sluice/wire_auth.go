package main

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"

	"sluice/handlers"
	"sluice/handlers/auth"
	"sluice/handlers/auth/store"
)

// Below data.dir.
const (
	keysFile = "keys.db"
	// localTokenFile holds the token by which the command line of this machine speaks to the
	// admin API of a gateway that runs.
	localTokenFile = "admin.token"
)

// Where the store is.
const (
	storeRedis  = "redis"
	storeFile   = "file"
	storeMemory = "memory" // until the gateway stops
)

// keyring is everything about callers that outlives a reload of the configuration.
type keyring struct {
	store   *store.Store
	kind    string
	why     string // why no keys are issued; "": they are
	callers *auth.Callers
	wrong   *auth.WrongKeys
	tickets *auth.Tickets
	live    *handlers.Live
	madeUp  string // a key, for as long as none are configured
	local   string // the token of localTokenFile
	closers []func() error
}

// storeKind is where the configuration has the store, and why no keys are issued.
func storeKind(c *Config) (kind, why string) {
	a := &c.Auth
	onNode := storeMemory
	if c.Data.Dir != "" {
		onNode = storeFile
	}
	switch {
	case a.Store == "off":
		return onNode, `issued keys are turned off: auth.store = "off"`
	case a.Store == "file":
		return storeFile, ""
	case a.Store == "redis" || c.Redis.configured() && a.Pepper.IsSet():
		return storeRedis, ""
	case c.Redis.configured():
		return onNode, "keys would be shared over Redis, and for that all gateways need the same auth.pepper, which is not set (openssl rand -hex 32)"
	default:
		return onNode, ""
	}
}

// keepsKeys tells whether issued keys outlive the gateway, so that it may listen without
// any other key.
func keepsKeys(c *Config) bool {
	kind, why := storeKind(c)
	return why == "" && kind != storeMemory
}

// openStore opens the store as the configuration says; the functions close it, in their order.
func openStore(c *Config, kind string, log *slog.Logger) (s *store.Store, p *store.Pepper, closers []func() error, err error) {
	if p, err = newPepper(c, kind); err != nil {
		return nil, nil, nil, err
	}
	o := store.Options{Pepper: p, Prefix: c.Redis.Prefix, MaxStale: c.Auth.MaxStale.Std(), Log: log}
	switch kind {
	case storeRedis:
		client := newRedisClient(&c.Redis)
		s, err = store.OpenRedis(context.Background(), client, o)
		closers = append(closers, client.Close)
	case storeFile:
		s, err = store.OpenBolt(filepath.Join(c.Data.Dir, keysFile), o)
	default:
		s, err = store.OpenMemory(o)
	}
	if err != nil {
		for _, end := range closers {
			_ = end()
		}
		return nil, nil, nil, fmt.Errorf("open the store of the keys: %w", err)
	}
	return s, p, append([]func() error{s.Close}, closers...), nil
}

func newPepper(c *Config, kind string) (*store.Pepper, error) {
	switch {
	case c.Auth.Pepper.IsSet():
		return store.NewPepper([]byte(c.Auth.Pepper.Reveal()))
	case kind == storeFile:
		return store.KeepPepper(c.Data.Dir)
	default:
		secret := make([]byte, store.MinPepper)
		_, _ = rand.Read(secret)
		return store.NewPepper(secret)
	}
}

// openKeyring opens the store, and ends what runs with a key that is revoked.
// No key of the configuration is in it yet.
func openKeyring(c *Config, log *slog.Logger) (*keyring, error) {
	k := &keyring{live: handlers.NewLive(), local: rand.Text(), wrong: auth.NewWrongKeys(c.Auth.Tries)}
	k.kind, k.why = storeKind(c)
	s, pepper, closers, err := openStore(c, k.kind, log)
	if err != nil {
		return nil, err
	}
	k.store, k.closers = s, closers
	if k.why != "" {
		log.Warn("no keys are issued", slog.String("why", k.why))
	}
	k.callers = auth.NewCallers(auth.NewKeys(nil), k.issuer())
	k.tickets = newTickets(&c.WebSocket, pepper, k.spender(c))
	s.OnRevoked(k.revoked)
	return k, nil
}

// issuer is nil when no keys are issued.
func (k *keyring) issuer() auth.Issuer {
	if k.why != "" {
		return nil
	}
	return k.store
}

// revoked ends the answers and the connections of a secret that is no longer good.
func (k *keyring) revoked(r store.Revocation) {
	id := r.ID.String()
	k.live.EndKeys(func(who *auth.Principal) bool { return !who.Configured() && who.Key == id && r.Ends(who.Serial) }, handlers.ErrKeyRevoked)
}

// replace puts the keys of another configuration in force. What runs with a key that is not
// in it any more, or has another secret there, ends.
func (k *keyring) replace(static *auth.Keys) {
	k.callers.Replace(static)
	k.live.EndKeys(func(who *auth.Principal) bool { return who.Configured() && !static.Holds(who) }, handlers.ErrKeyRevoked)
}

// watch tells how the store stands, where it can be out of reach.
func (k *keyring) watch(o *handlers.Observer) {
	if k.kind != storeRedis {
		return
	}
	o.Watch("gateway_keys_age_seconds", "How long ago the issued keys were known to be as Redis has them.", func() float64 { return k.store.State().Age.Seconds() })
	o.Watch("gateway_keys_refused", "1 while every issued key is refused, since Redis was out of reach for too long.", func() float64 {
		if k.store.State().Refusing {
			return 1
		}
		return 0
	})
}

// Close is called once the last answer has ended.
func (k *keyring) Close() error {
	var all []error
	for _, end := range k.closers {
		all = append(all, end())
	}
	return errors.Join(all...)
}

// ticketsKept bounds what is remembered of spent tickets: some ten megabytes.
const ticketsKept = 100_000

func newTickets(w *WebSocket, p *store.Pepper, spent auth.Spender) *auth.Tickets {
	secret := []byte(w.TicketSecret.Reveal())
	if len(secret) == 0 {
		secret = p.Derive("websocket tickets")
	}
	return auth.NewTickets(secret, w.TicketLifetime.Std(), spent)
}

// spender is where used tickets are remembered: for all replicas where they share a Redis.
func (k *keyring) spender(c *Config) auth.Spender {
	if !c.Redis.configured() {
		return auth.NewSpentHere(ticketsKept)
	}
	client := newRedisClient(&c.Redis)
	k.closers = append(k.closers, client.Close)
	return store.NewSpentTickets(client, c.Redis.Prefix)
}

// generatedKey is the name of a key that was made up.
const generatedKey = "generated"

// newKeys takes the keys of the configuration. Without any, and without issued ones, it
// makes one up, which is returned to be shown: for who tries things out on one machine.
func newKeys(c *Config, k *keyring) (keys *auth.Keys, generated string) {
	digests := map[[sha256.Size]byte]auth.Principal{}
	for i := range c.Keys {
		if sum, ok := c.Keys[i].Digest(); ok {
			digests[sum] = principal(&c.Keys[i])
		}
	}
	if len(digests) == 0 && k.store.State().Keys == 0 && !c.ListensBeyondLoopback() {
		if k.madeUp == "" {
			var b [24]byte
			_, _ = rand.Read(b[:])
			k.madeUp = "sk-" + hex.EncodeToString(b[:])
		}
		generated = k.madeUp
		digests[sha256.Sum256([]byte(generated))] = auth.Principal{Key: generatedKey}
	}
	return auth.NewKeys(digests), generated
}
