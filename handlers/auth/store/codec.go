package store

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"sync"
	"time"

	"sluice/handlers/auth"
)

// keyVersion is that of the JSON form. Fields may be added within a version: readers that do
// not know them keep them. A newer version says that who does not know it must not use
// the key: it is then kept as it is, and refused.
const keyVersion = 1

// keyJSON is the stored form of a key.
type keyJSON struct {
	Format     int               `json:"v"`
	ID         auth.KeyID        `json:"id"`
	Version    uint64            `json:"version"`
	Name       string            `json:"name"`
	Secrets    []secretJSON      `json:"secrets,omitempty"`
	Created    time.Time         `json:"created"`
	Updated    time.Time         `json:"updated"`
	Expires    time.Time         `json:"expires,omitzero"`
	Disabled   bool              `json:"disabled,omitempty"`
	Deleted    time.Time         `json:"deleted,omitzero"`
	Models     []string          `json:"models,omitempty"`
	Routes     []string          `json:"routes,omitempty"`
	Transports []string          `json:"transports,omitempty"`
	Limits     []Limit           `json:"limits,omitempty"`
	Groups     []string          `json:"groups,omitempty"`
	User       string            `json:"user,omitempty"`
	Team       string            `json:"team,omitempty"`
	Org        string            `json:"org,omitempty"`
	Metadata   map[string]string `json:"metadata,omitempty"`
}

type secretJSON struct {
	Serial uint32    `json:"serial"`
	HMAC   string    `json:"hmac"` // hexadecimal
	Until  time.Time `json:"until,omitzero"`
}

var errNewer = errors.New("the key was written by a newer version of sluice")

// encode writes the stored form.
func (k *Key) encode() ([]byte, error) {
	out := keyJSON{
		Format: keyVersion, ID: k.ID, Version: k.Version, Name: k.Name, Created: k.Created, Updated: k.Updated,
		Expires: k.Expires, Disabled: k.Disabled, Deleted: k.Deleted, Models: k.Models, Routes: k.Routes,
		Transports: k.Transports, Limits: k.Limits, Groups: k.Groups, User: k.User, Team: k.Team, Org: k.Org, Metadata: k.Metadata,
	}
	if k.newer != nil {
		return k.newer, nil
	}
	for _, s := range k.secrets {
		out.Secrets = append(out.Secrets, secretJSON{s.serial, hex.EncodeToString(s.sum[:]), s.until})
	}
	return marshalWith(out, k.rest)
}

// decode reads the stored form. A key of a newer version has its ID, Version and Name, as
// far as they can be read, and is refused everywhere.
func decode(text []byte) (*Key, error) {
	var head struct {
		Format  int        `json:"v"`
		ID      auth.KeyID `json:"id"`
		Version uint64     `json:"version"`
		Name    string     `json:"name"`
	}
	if err := json.Unmarshal(text, &head); err != nil {
		return nil, fmt.Errorf("read a stored key: %w", err)
	}
	switch {
	case head.Format < 1 || head.Version < 1 || head.ID == (auth.KeyID{}):
		return nil, errors.New("read a stored key: it has no format, id or version")
	case head.Format > keyVersion:
		return &Key{ID: head.ID, Version: head.Version, Name: head.Name, newer: append([]byte(nil), text...)}, nil
	}
	var in keyJSON
	rest, err := unmarshalWith(text, &in)
	if err != nil {
		return nil, fmt.Errorf("read the stored key %s: %w", head.ID, err)
	}
	k := &Key{
		ID: in.ID, Version: in.Version, Name: in.Name, Created: in.Created, Updated: in.Updated, Expires: in.Expires,
		Disabled: in.Disabled, Deleted: in.Deleted, Models: in.Models, Routes: in.Routes, Transports: in.Transports,
		Limits: in.Limits, Groups: in.Groups, User: in.User, Team: in.Team, Org: in.Org, Metadata: in.Metadata, rest: rest,
	}
	if err := k.takeSecrets(in.Secrets); err != nil {
		return nil, fmt.Errorf("read the stored key %s: %w", head.ID, err)
	}
	if err := k.prepare(); err != nil {
		return nil, fmt.Errorf("read the stored key %s: %w", head.ID, err)
	}
	return k, nil
}

func (k *Key) takeSecrets(in []secretJSON) error {
	if len(in) > maxSecrets || len(in) == 0 && k.Deleted.IsZero() {
		return fmt.Errorf("it has %d secrets", len(in))
	}
	for _, s := range in {
		sum, err := hex.DecodeString(s.HMAC)
		if err != nil || len(sum) != sha256.Size {
			return errors.New("a secret's HMAC is not that of SHA-256")
		}
		k.secrets = append(k.secrets, secret{s.Serial, [sha256.Size]byte(sum), s.Until})
	}
	return nil
}

// marshalWith writes the fields of v, then those of rest that v has not.
func marshalWith(v any, rest map[string]json.RawMessage) ([]byte, error) {
	text, err := json.Marshal(v)
	if err != nil || len(rest) == 0 {
		return text, err
	}
	more, err := json.Marshal(rest)
	if err != nil {
		return nil, err
	}
	if len(text) == 2 {
		return more, nil
	}
	return append(append(text[:len(text)-1], ','), more[1:]...), nil
}

// unmarshalWith reads the fields that v, a pointer to a struct, has and returns the others.
func unmarshalWith(text []byte, v any) (rest map[string]json.RawMessage, err error) {
	if err := json.Unmarshal(text, v); err != nil {
		return nil, err
	}
	if err := json.Unmarshal(text, &rest); err != nil {
		return nil, err
	}
	known := knownFields(reflect.TypeOf(v).Elem())
	for name := range rest {
		if known[strings.ToLower(name)] { // as encoding/json matches them
			delete(rest, name)
		}
	}
	if len(rest) == 0 {
		return nil, nil
	}
	return rest, nil
}

var fieldSets sync.Map // of reflect.Type: map[string]bool

func knownFields(t reflect.Type) map[string]bool {
	if known, ok := fieldSets.Load(t); ok {
		return known.(map[string]bool)
	}
	known := map[string]bool{}
	for i := range t.NumField() {
		name, _, _ := strings.Cut(t.Field(i).Tag.Get("json"), ",")
		known[name] = true
	}
	fieldSets.Store(t, known)
	return known
}
