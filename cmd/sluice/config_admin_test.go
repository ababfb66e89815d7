package main

import (
	"strings"
	"testing"
)

// TestAdminConfigErrors refuses what would leave the door open, or shut for good; none of
// it shows a secret.
func TestAdminConfigErrors(t *testing.T) {
	user := func(name, hash string) string {
		return "[[admin.users]]\nname = \"" + name + "\"\npassword_hash = '" + hash + "'\n"
	}
	token := func(value string) string {
		return "[[admin.tokens]]\nname = \"a\"\n" + value + "\n"
	}
	long := strings.Repeat("t", minAdminToken)
	for name, c := range map[string]struct{ toml, want string }{
		"plain password":  {"[admin]\npassword_hash = \"hunter2hunter2\"\n", "want an argon2id hash"},
		"cut hash":        {"[admin]\npassword_hash = '" + adminHash[:60] + "'\n", "the hash must be"},
		"user's hash":     {user("ada", "x"), "want an argon2id hash"},
		"no hash":         {"[[admin.users]]\nname = \"ada\"\n", "a password is required"},
		"two of a name":   {user("ada", adminHash) + user("ada", adminHash), "is taken already"},
		"the name admin":  {"[admin]\npassword_hash = '" + adminHash + "'\n" + user("admin", adminHash), "is taken already by admin.password_hash"},
		"role":            {"[[admin.users]]\nname = \"ada\"\nrole = \"root\"\npassword_hash = '" + adminHash + "'\n", `want "admin" or "viewer"`},
		"short token":     {token(`token = "hunter2hunter2"`), "at least 32 characters"},
		"spaces":          {token(`token = "` + long + ` x"`), "without spaces"},
		"no token":        {token(""), "give one of token, token_file and hash"},
		"token and hash":  {token(`token = "` + long + `"` + "\nhash = \"sha256:" + strings.Repeat("0", 64) + `"`), "both given"},
		"short hash":      {token(`hash = "sha256:00"`), "64 hexadecimal digits"},
		"hash of nothing": {token(`hash = "sha256:` + emptyDigest + `"`), "SHA-256 of nothing"},
		"twice the same":  {token(`token = "`+long+`"`) + "[[admin.tokens]]\nname = \"b\"\ntoken = \"" + long + "\"\n", "the same token as admin.tokens[0]"},
		"the name local":  {"[[admin.tokens]]\nname = \"local\"\ntoken = \"" + long + "\"\n", "is taken already by the command line"},
		"host with port":  {"[admin]\nhosts = [\"sluice.example:8081\"]\n", "without scheme and port"},
		"host with case":  {"[admin]\nhosts = [\"Sluice.example\"]\n", "in lower case"},
		"tls of nothing":  {"[admin]\ntls = true\n", "server.tls_cert and server.tls_key are missing"},
		"lifetime":        {"[admin]\nsession_idle = \"2h\"\nsession_lifetime = \"1h\"\n", "must be at least admin.session_idle"},
		"nobody":          {"[server]\nadmin_listen = \":8081\"\n", "nobody could sign in there"},
		"empty password":  {"[server]\nadmin_listen = \":8081\"\n[admin]\npassword_hash = \"\"\n", "nobody could sign in there"},
		"missing file":    {"[server]\nadmin_listen = \":8081\"\n[admin]\npassword_hash_file = \"/no/such\"\n", "cannot read it"},
	} {
		_, _, err := loadText(t, c.toml, nil)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v; want %q", name, err, c.want)
			continue
		}
		if strings.Contains(err.Error(), "hunter2") || strings.Contains(err.Error(), adminHash[20:50]) {
			t.Errorf("%s: the error shows a secret: %v", name, err)
		}
	}
	for name, text := range map[string]string{
		"a token alone": "[server]\nadmin_listen = \":8081\"\n" + token(`token = "`+long+`"`), "metrics alone": "[server]\nadmin_listen = \":8081\"\n[admin]\napi = false\n",
		"no listener": "[server]\nadmin_listen = \"\"\n", "a password": "[server]\nadmin_listen = \":8081\"\n[admin]\npassword_hash = '" + adminHash + "'\n",
	} {
		if _, _, err := loadText(t, text, nil); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}
