package main

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"regexp"
	"strings"

	"sluice/handlers/auth"
)

// Admin is the [admin] section.
type Admin struct {
	API          bool     `toml:"api" restart:"true" doc:"Whether the admin API is served at /admin/api on server.admin_listen, beside metrics and health."`
	PasswordHash Secret   `toml:"password_hash" group:"password_hash" doc:"Password of the user \"admin\": sluice admin hash-password makes it. With \"\" and neither users nor tokens one is made up and printed at each start, for a listener on loopback."`
	PasswordFile string   `toml:"password_hash_file" group:"password_hash" example:"\"secrets/admin.hash\"" doc:"Or a file that holds it."`
	TLS          bool     `toml:"tls" restart:"true" doc:"Whether the listener speaks TLS, with server.tls_cert: browsers on other machines take a session's cookie over nothing else."`
	Hosts        []string `toml:"hosts" restart:"true" doc:"Names by which the listener may be called, beside localhost and addresses. With none, a listener on loopback takes no other name, and one beyond takes any."`
	Idle         Duration `toml:"session_idle" restart:"true" min:"1m" max:"24h" doc:"A session that was not used for so long is over ..."`
	Total        Duration `toml:"session_lifetime" restart:"true" min:"1m" max:"720h" doc:"... and any session this long after signing in."`
	Tries        int      `toml:"tries_per_minute" restart:"true" min:"1" max:"1000" doc:"Wrong passwords, keys and tokens that an address may send in a minute; beyond it 429."`
	AuditEntries int      `toml:"audit_entries" restart:"true" min:"100" max:"10000000" doc:"Entries of the audit log that are kept, a kilobyte each or so; the oldest go first ..."`
	AuditKeep    Duration `toml:"audit_keep" restart:"true" min:"1h" doc:"... and this is how long they are kept at most."`

	Users  []AdminUser  `toml:"users" doc:"People who sign in, beside the user \"admin\"."`
	Tokens []AdminToken `toml:"tokens" doc:"Bearer tokens for scripts: Authorization: Bearer TOKEN."`
}

// AdminUser is one [[admin.users]] table.
type AdminUser struct {
	Name         string `toml:"name" example:"\"ada\"" doc:"Who signs in; shown in the audit log."`
	Role         string `toml:"role" oneof:"admin,viewer" doc:"A viewer sees everything and changes nothing"`
	PasswordHash Secret `toml:"password_hash" group:"password_hash" example:"\"$argon2id$v=19$m=19456,t=2,p=1$WKJ81cw9l3oFZAthTcsWnQ$gcYCDohJRNwEBTxStyoA45h4nK6gbEIy3bzVbywf0Dw\"" doc:"Argon2id in PHC form: sluice admin hash-password"`
	PasswordFile string `toml:"password_hash_file" group:"password_hash" example:"\"secrets/ada.hash\"" doc:"Or a file that holds it."`
}

func (u *AdminUser) setDefaults() { u.Role = "viewer" }

// AdminToken is one [[admin.tokens]] table.
type AdminToken struct {
	Name      string `toml:"name" example:"\"deploy\"" doc:"What the token is for; shown in the audit log."`
	Role      string `toml:"role" oneof:"admin,viewer" doc:"A viewer sees everything and changes nothing"`
	Token     Secret `toml:"token" group:"token" example:"\"${DEPLOY_TOKEN}\"" doc:"The token, at least 32 characters: openssl rand -hex 32"`
	TokenFile string `toml:"token_file" group:"token" example:"\"secrets/deploy.token\"" doc:"Or a file that holds it."`
	Hash      Secret `toml:"hash" group:"token" example:"\"sha256:0000000000000000000000000000000000000000000000000000000000000000\"" doc:"Or the SHA-256 of it: printf %s \"$TOKEN\" | sha256sum"`
}

func (t *AdminToken) setDefaults() { t.Role = "viewer" }

func (a *Admin) setDefaults() {
	*a = Admin{
		API: true, PasswordHash: newSecret(""), Hosts: []string{}, Idle: 30 * minute, Total: 12 * 60 * minute, Tries: 10,
		AuditEntries: 100_000, AuditKeep: 365 * 24 * 60 * minute, Users: []AdminUser{}, Tokens: []AdminToken{},
	}
}

// minAdminToken is the length, in characters, below which a token could be guessed.
const minAdminToken = 32

// digest is the SHA-256 of the token, whichever form it was given in.
func (t *AdminToken) digest() (sum [sha256.Size]byte, ok bool) {
	return Key{Key: t.Token, Hash: t.Hash}.Digest()
}

// open tells whether somebody who is not made up at the start can use the API.
func (a *Admin) open() bool {
	return a.PasswordHash.IsSet() || len(a.Users) > 0 || len(a.Tokens) > 0
}

func (d *decoder) readAdminSecrets(a *Admin) {
	d.exclusive("admin", a.PasswordHash.IsSet(), "password_hash", a.PasswordFile != "", "password_hash_file")
	d.secretFile("admin.password_hash_file", a.PasswordFile, &a.PasswordHash)
	for i := range a.Users {
		u, at := &a.Users[i], fmt.Sprintf("admin.users[%d]", i)
		d.exclusive(at, u.PasswordHash.IsSet(), "password_hash", u.PasswordFile != "", "password_hash_file")
		d.secretFile(at+".password_hash_file", u.PasswordFile, &u.PasswordHash)
	}
	for i := range a.Tokens {
		t, at := &a.Tokens[i], fmt.Sprintf("admin.tokens[%d]", i)
		d.exclusive(at, t.Token.IsSet(), "token", t.TokenFile != "", "token_file")
		d.exclusive(at, t.Token.IsSet() || t.TokenFile != "", "token", t.Hash.IsSet(), "hash")
		d.secretFile(at+".token_file", t.TokenFile, &t.Token)
	}
}

var hostName = regexp.MustCompile(`^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$`)

func (d *decoder) validateAdmin(cfg *Config) {
	a := &cfg.Admin
	for i, h := range a.Hosts {
		if !hostName.MatchString(h) {
			d.failAt(fmt.Sprintf("admin.hosts[%d]", i), `want a host's name in lower case, without scheme and port, such as "sluice.example"`)
		}
	}
	if a.TLS && cfg.Server.TLSCert == "" && !d.bad["server.tls_cert"] {
		d.failAt("admin.tls", "server.tls_cert and server.tls_key are missing")
	}
	if a.Total < a.Idle {
		d.failAt("admin.session_lifetime", "must be at least admin.session_idle (%s)", a.Idle)
	}
	if a.PasswordHash.IsSet() {
		d.validatePasswordHash("admin", a.PasswordHash, a.PasswordFile)
	}
	d.validateAdminUsers(a)
	d.validateAdminTokens(a)
	if s := cfg.Server.AdminListen; a.API && s != "" && !a.open() && !isLoopback(s) && !d.bad["admin.password_hash_file"] {
		d.failAt("server.admin_listen", "%s is reachable from other machines, and nobody could sign in there: set admin.password_hash (sluice admin hash-password makes it), "+
			"or add [[admin.users]] or [[admin.tokens]]; or leave only metrics and health there with admin.api = false", s)
	}
}

func (d *decoder) validatePasswordHash(table string, hash Secret, file string) {
	at := givenAs(table, "password_hash", file)
	switch {
	case hash.IsSet():
		if _, err := auth.ParsePasswordHash(hash.Reveal()); err != nil {
			d.failAt(at, "%s", err)
		}
	case file == "" && !d.bad[at]:
		d.failAt(at, "a password is required: sluice admin hash-password")
	}
}

func (d *decoder) validateAdminUsers(a *Admin) {
	names := map[string]string{}
	if a.PasswordHash.IsSet() {
		names[mainAdmin] = "admin.password_hash"
	}
	for i, u := range a.Users {
		at := fmt.Sprintf("admin.users[%d]", i)
		d.validateName(at+".name", u.Name)
		d.unique(names, u.Name, at+".name")
		d.validatePasswordHash(at, u.PasswordHash, u.PasswordFile)
	}
}

func (d *decoder) validateAdminTokens(a *Admin) {
	names, digests := map[string]string{localToken: "the command line of the gateway's machine"}, map[[32]byte]string{}
	for i := range a.Tokens {
		t, at := &a.Tokens[i], fmt.Sprintf("admin.tokens[%d]", i)
		d.validateName(at+".name", t.Name)
		d.unique(names, t.Name, at+".name")
		switch {
		case t.Token.IsSet():
			if v := t.Token.Reveal(); len(v) < minAdminToken || strings.ContainsFunc(v, notHeaderSafe) {
				d.failAt(givenAs(at, "token", t.TokenFile), "want at least %d characters without spaces: openssl rand -hex 32", minAdminToken)
			}
		case t.Hash.IsSet():
			if !isHash(t.Hash.Reveal()) {
				d.failAt(at+".hash", "want %s and 64 hexadecimal digits", hashPrefix)
			}
		case t.TokenFile == "" && !d.bad[at+".token"] && !d.bad[at+".hash"]:
			d.failAt(at+".token", "give one of token, token_file and hash")
		}
		if sum, ok := t.digest(); ok {
			if first, taken := digests[sum]; taken {
				d.failAt(at, "the same token as %s", first)
			} else if hex.EncodeToString(sum[:]) == emptyDigest {
				d.failAt(at+".hash", "this is the SHA-256 of nothing")
			}
			digests[sum] = at
		}
	}
}

// emptyDigest is what sha256sum says of a variable that is not set.
const emptyDigest = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"

const (
	mainAdmin  = "admin" // the user of admin.password_hash
	localToken = "local" // of the command line on the gateway's machine
)
