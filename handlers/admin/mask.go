package admin

import (
	"bytes"
	"encoding/json"
	"regexp"
	"strings"
)

const maskText = "***"

// secretNames are members whose values no log may have, whatever made them.
var secretNames = map[string]bool{
	"secret": true, "password": true, "password_hash": true, "token": true, "hash": true, "api_key": true, "apikey": true,
	"authorization": true, "cookie": true, "pepper": true, "ticket_secret": true, "sentinel_password": true, "key_secret": true, "private_key": true,
}

// publicKey is how an issued key begins, up to its secret.
var publicKey = regexp.MustCompile(`^sk-slc-[0-9a-z]{12}`)

// hidden is what is left of a text that secretText finds.
func hidden(text string) string {
	begin := publicKey.FindString(text)
	if begin == text {
		return text
	}
	return begin + maskText
}

// secretText finds keys, ours and those of providers, and bearer credentials inside texts.
var secretText = regexp.MustCompile(`sk-[A-Za-z0-9_-]{16,}|(?i:bearer) +[A-Za-z0-9._~+/=-]{8,}|\$argon2[a-z]*\$[^\s"]+`)

// largestValue bounds the before and the after of one entry, in bytes each.
const largestValue = 16 << 10

// masked is a value as the audit log keeps it: what looks like a secret is hidden, even where
// the handler forgot to. What is too large is left out, and said to be.
func masked(v any) (json.RawMessage, error) {
	if v == nil {
		return nil, nil
	}
	text, err := json.Marshal(v)
	if err != nil {
		return nil, err
	}
	dec := json.NewDecoder(bytes.NewReader(text))
	dec.UseNumber()
	var tree any
	if err := dec.Decode(&tree); err != nil {
		return nil, err
	}
	text, err = json.Marshal(mask(tree))
	if err == nil && len(text) > largestValue {
		return json.Marshal(map[string]any{"too_large": len(text)})
	}
	return text, err
}

func mask(v any) any {
	switch v := v.(type) {
	case map[string]any:
		for name, member := range v {
			if secretNames[strings.ToLower(name)] && member != nil && member != "" {
				v[name] = maskText
				continue
			}
			v[name] = mask(member)
		}
	case []any:
		for i := range v {
			v[i] = mask(v[i])
		}
	case string:
		return secretText.ReplaceAllStringFunc(v, hidden)
	}
	return v
}
