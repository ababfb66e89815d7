package main

import (
	"crypto/rand"
	"crypto/sha256"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"time"

	"sluice/handlers"
	"sluice/handlers/admin"
	"sluice/handlers/auth"
	"sluice/handlers/auth/store"
)

// operators are who may use the admin API. They outlive reloads.
type operators struct {
	*auth.Operators
	passwords *auth.PasswordSignIn
	local     auth.AdminToken // of the command line on this machine

	madeUp string // the password, when none is configured; "" else
	hash   *auth.PasswordHash
}

// newOperators knows who is configured. address tells where a request comes from.
func newOperators(c *Config, k *keyring, address func(*http.Request) netip.Addr) (*operators, error) {
	o := &operators{
		passwords: auth.NewPasswordSignIn(nil),
		local:     auth.AdminToken{Name: localToken, Role: auth.RoleAdmin, Digest: sha256.Sum256([]byte(k.local))},
	}
	o.Operators = auth.NewOperators(auth.OperatorOptions{
		Sessions: k.store, Ways: map[string]auth.SignIn{"password": o.passwords, "key": auth.KeySignIn{Callers: k.callers}},
		Idle: c.Admin.Idle.Std(), Total: c.Admin.Total.Std(), Tries: c.Admin.Tries, Address: address,
	})
	if !c.Admin.open() {
		o.madeUp = rand.Text()
		phc, err := auth.HashPassword(o.madeUp)
		if err != nil {
			return nil, err
		}
		if o.hash, err = auth.ParsePasswordHash(phc); err != nil {
			return nil, err
		}
	}
	return o, o.replace(c)
}

// replace puts the users and tokens of a configuration in force. Sessions of those who are
// gone, or have another password, end.
func (o *operators) replace(c *Config) error {
	users, tokens := []auth.User{}, []auth.AdminToken{o.local}
	a := &c.Admin
	add := func(name, role string, hash Secret) error {
		h, err := auth.ParsePasswordHash(hash.Reveal())
		if err != nil {
			return fmt.Errorf("the password of the user %s: %w", name, err)
		}
		users = append(users, auth.User{Name: name, Role: auth.Role(role), Hash: h})
		return nil
	}
	if a.PasswordHash.IsSet() {
		if err := add(mainAdmin, string(auth.RoleAdmin), a.PasswordHash); err != nil {
			return err
		}
	}
	for _, u := range a.Users {
		if err := add(u.Name, u.Role, u.PasswordHash); err != nil {
			return err
		}
	}
	for i := range a.Tokens {
		if sum, ok := a.Tokens[i].digest(); ok {
			tokens = append(tokens, auth.AdminToken{Name: a.Tokens[i].Name, Role: auth.Role(a.Tokens[i].Role), Digest: sum})
		}
	}
	if !a.open() && o.hash != nil {
		users = append(users, auth.User{Name: mainAdmin, Role: auth.RoleAdmin, Hash: o.hash})
	}
	o.passwords.SetUsers(users)
	o.SetTokens(tokens)
	return nil
}

// newAudit is the audit log of a configuration.
func newAudit(c *Config, s *store.Store) (auth.AuditLog, error) {
	return s.Audit(c.Admin.AuditEntries, c.Admin.AuditKeep.Std())
}

// nodeName tells this gateway from its replicas.
func nodeName() string {
	name, err := os.Hostname()
	if err != nil {
		return "unknown"
	}
	return name
}

// clientAddress believes the proxies that are configured now.
func (l *lasting) clientAddress(r *http.Request) netip.Addr {
	return handlers.ClientAddress(proxies(l.newest.Load().cfg))(r)
}

// newAdmin is what the admin listener at an address serves.
func (r *reloader) newAdmin(c *Config, at net.Addr) (http.Handler, error) {
	l := r.lasting
	tcp, ok := at.(*net.TCPAddr)
	local := ok && tcp.IP.IsLoopback()
	hosts := admin.Hosts{Names: c.Admin.Hosts, Any: !local && len(c.Admin.Hosts) == 0}
	if !c.Admin.API {
		parts := handlers.AdminParts{}
		if !local {
			parts.Profiles = func(http.Handler) http.Handler { return http.NotFoundHandler() }
		}
		return hosts.Guard(handlers.Admin(l.observer, l.drain, parts)), nil
	}
	who, err := newOperators(c, l.keys, l.clientAddress)
	if err != nil {
		return nil, err
	}
	opt, err := r.adminOptions(c, who)
	if err != nil {
		return nil, err
	}
	l.operators.Store(who)
	parts := handlers.AdminParts{API: admin.New(opt)}
	if !local {
		parts.Profiles = func(h http.Handler) http.Handler { return admin.Require(who, h) }
	}
	if who.madeUp != "" {
		l.log.Warn("no password is configured for the admin API: this one was made up and holds until the gateway stops",
			slog.String("user", mainAdmin), slog.String("password", who.madeUp))
	}
	return hosts.Guard(handlers.Admin(l.observer, l.drain, parts)), nil
}

// adminOptions are the parts of the API; each subject's are in a file of its own.
func (r *reloader) adminOptions(c *Config, who *operators) (o admin.Options, err error) {
	l := r.lasting
	o = admin.Options{
		Authority: who, SignIns: who, Address: who.Address, Log: l.log, Keys: l.adminKeys(), Config: adminConfig{r}, Overrides: adminConfig{r},
		System: admin.SystemInfo{Version: l.version, Node: nodeName(), Store: l.keys.kind, Started: time.Now()},
	}
	l.addTraffic(&o)
	o.Audit, err = newAudit(c, l.keys.store)
	return o, err
}
