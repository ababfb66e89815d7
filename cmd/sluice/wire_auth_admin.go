package main

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"net/url"
	"slices"

	"sluice/handlers"
	"sluice/handlers/admin"
	"sluice/handlers/auth"
	"sluice/handlers/auth/store"
	"sluice/providers"
)

// adminKeys are the keys as the admin API of a gateway has them.
func (l *lasting) adminKeys() admin.Keys {
	out := admin.Keys{
		Off: l.keys.why, Static: l.staticKeys, Operations: handlers.Operations(),
		Report: l.keyReport, BadQuery: badQuery,
	}
	if l.keys.why == "" {
		out.Store = l.keys.store
	}
	return out
}

// keyReport is what GET /v1/key tells a caller.
func (l *lasting) keyReport(ctx context.Context, who auth.Principal, query url.Values) (any, error) {
	g := l.take()
	defer g.leave()
	return g.api.KeyReport(ctx, who, "", query)
}

// badQuery finds what is wrong with the parameters of a report.
func badQuery(err error) (param, message string, ok bool) {
	e := providers.AsError(err)
	if e == nil || e.Kind != providers.BadRequest && e.Kind != providers.ModelNotFound {
		return "", "", false
	}
	return e.Param, e.Message, true
}

// staticKeys are the keys of the configuration, and where they stand.
func staticKeys(c *Config) []admin.StaticKey {
	out := make([]admin.StaticKey, len(c.Keys))
	for i := range c.Keys {
		out[i] = admin.StaticKey{Who: principal(&c.Keys[i]), Source: c.Source(fmt.Sprintf("keys[%d].name", i)).String()}
	}
	return out
}

// staticKeys are those that are in force, with the one that was made up.
func (l *lasting) staticKeys() []admin.StaticKey {
	g := l.newest.Load()
	all := staticKeys(g.cfg)
	if g.madeUp != "" {
		all = append(all, admin.StaticKey{Who: auth.Principal{Key: generatedKey}, Source: "made up at the start"})
	}
	return all
}

// localAdmin are the parts of the admin API that the command line has without a gateway.
func localAdmin(c *Config, s *store.Store) (o admin.Options, err error) {
	o = admin.Options{
		Authority: operator{}, Log: slog.New(slog.DiscardHandler), System: admin.SystemInfo{Node: nodeName()},
		Keys: admin.Keys{Store: s, Static: func() []admin.StaticKey { return staticKeys(c) }, Operations: handlers.Operations()},
	}
	o.Audit, err = newAudit(c, s)
	return o, err
}

// announce tells the command line of this machine of the admin listener.
func (k *keyring) announce(c *Config, address string) error {
	if c.Data.Dir == "" {
		return nil
	}
	base, err := adminURL(c, address)
	if err != nil {
		return err
	}
	forget, err := announce(c.Data.Dir, k.local, base)
	if err != nil {
		return err
	}
	k.closers = append([]func() error{forget}, k.closers...)
	return nil
}

func inOrder[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
