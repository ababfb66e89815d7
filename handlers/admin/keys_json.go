package admin

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"sluice/handlers/auth"
	"sluice/handlers/auth/store"
	"sluice/ratelimit"
)

// keyJSON is a key as it is shown. It holds no secret.
type keyJSON struct {
	ID         string            `json:"id"` // of a key of the configuration its name
	Name       string            `json:"name"`
	Prefix     string            `json:"prefix,omitempty"` // what its secret begins with
	State      string            `json:"state"`            // active, disabled, expired, deleted, newer
	Source     string            `json:"source"`           // "store", or where it stands in the configuration
	ReadOnly   bool              `json:"read_only"`
	Version    uint64            `json:"version,omitempty"` // as in the ETag
	Models     []string          `json:"models"`
	Routes     []string          `json:"routes"`
	Transports []string          `json:"transports"`
	Limits     []store.Limit     `json:"limits"`
	Groups     []string          `json:"groups"`
	User       string            `json:"user,omitempty"`
	Team       string            `json:"team,omitempty"`
	Org        string            `json:"org,omitempty"`
	Metadata   map[string]string `json:"metadata"`
	Secrets    int               `json:"secrets"` // that are valid: 2 while a rotation overlaps
	ExpiresAt  *time.Time        `json:"expires_at"`
	CreatedAt  *time.Time        `json:"created_at,omitempty"`
	UpdatedAt  *time.Time        `json:"updated_at,omitempty"`
	LastUsedAt *time.Time        `json:"last_used_at"`
	DeletedAt  *time.Time        `json:"deleted_at,omitempty"`
}

// orNull is null for the zero time.
func orNull(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	t = t.UTC()
	return &t
}

// listOf is never null in JSON.
func listOf[T any](s []T) []T { return append([]T{}, s...) }

func storedJSON(k *store.Key, now time.Time) keyJSON {
	out := keyJSON{
		ID: k.ID.String(), Name: k.Name, Prefix: "sk-slc-" + k.ID.String(), State: k.State(now), Source: "store", Version: k.Version,
		Models: listOf(k.Models), Routes: listOf(k.Routes), Transports: listOf(k.Transports), Limits: listOf(k.Limits), Groups: listOf(k.Groups),
		User: k.User, Team: k.Team, Org: k.Org, Metadata: k.Metadata, Secrets: k.Secrets(now), ExpiresAt: orNull(k.Expires),
		CreatedAt: orNull(k.Created), UpdatedAt: orNull(k.Updated), LastUsedAt: orNull(k.LastUsed), DeletedAt: orNull(k.Deleted),
	}
	if out.Metadata == nil {
		out.Metadata = map[string]string{}
	}
	return out
}

func staticJSON(one *StaticKey) keyJSON {
	who := &one.Who
	may := who.May
	if may == nil {
		may = &auth.Permissions{}
	}
	return keyJSON{
		ID: who.Key, Name: who.Key, State: "active", Source: one.Source, ReadOnly: true, Models: listOf(may.Models), Routes: listOf(may.Routes),
		Transports: listOf(may.Transports), Limits: store.LimitsOf(who.Rules), Groups: listOf(who.Groups), User: who.User, Team: who.Team, Org: who.Org,
		Metadata: map[string]string{}, Secrets: 1,
	}
}

// keyEdit are the fields of a key that a request may set. Those that are absent stay as
// they are.
type keyEdit struct {
	Name       *string            `json:"name"`
	Disabled   *bool              `json:"disabled"`
	ExpiresAt  json.RawMessage    `json:"expires_at"` // null: never
	Models     *[]string          `json:"models"`
	Routes     *[]string          `json:"routes"`
	Transports *[]string          `json:"transports"`
	Limits     *[]store.Limit     `json:"limits"`
	Groups     *[]string          `json:"groups"`
	User       *string            `json:"user"`
	Team       *string            `json:"team"`
	Org        *string            `json:"org"`
	Metadata   *map[string]string `json:"metadata"`
}

func (e *keyEdit) apply(k *Keys, key *store.Key) error {
	set(&key.Name, e.Name)
	set(&key.Disabled, e.Disabled)
	set(&key.Models, e.Models)
	set(&key.Routes, e.Routes)
	set(&key.Transports, e.Transports)
	set(&key.Limits, e.Limits)
	set(&key.Groups, e.Groups)
	set(&key.User, e.User)
	set(&key.Team, e.Team)
	set(&key.Org, e.Org)
	set(&key.Metadata, e.Metadata)
	if len(e.ExpiresAt) > 0 {
		key.Expires = time.Time{}
		if !bytes.Equal(e.ExpiresAt, []byte("null")) && json.Unmarshal(e.ExpiresAt, &key.Expires) != nil {
			return badField("expires_at", "expires_at is a time such as 2027-01-31T00:00:00Z (RFC 3339), or null for never.")
		}
	}
	if e.Limits != nil {
		for i := range *e.Limits {
			if unknown := (*e.Limits)[i].Unknown(); len(unknown) > 0 {
				at := fmt.Sprintf("limits[%d].%s", i, unknown[0])
				return badField(at, "There is no limit %q. Known are concurrent, usd_per_day, usd_per_month, and for each second, minute, hour or day (as in requests_per_minute) "+
					"requests, tokens, input_tokens, output_tokens, frames and frame_bytes; beside them models, scope, burst, hard and on_trouble.", unknown[0])
			}
		}
	}
	if e.Routes != nil {
		return k.checkRoutes(key.Routes)
	}
	return nil
}

func set[T any](to *T, value *T) {
	if value != nil {
		*to = *value
	}
}

// checkRoutes refuses patterns that no operation fits: such a key would be good for nothing.
func (k *Keys) checkRoutes(routes []string) error {
	for i, r := range routes {
		if len(k.Operations) > 0 && !slices.ContainsFunc(k.Operations, func(op string) bool { return ratelimit.Fits(r, op) }) {
			return badField(fmt.Sprintf("routes[%d]", i), "There is no operation %q. Known are %s.", r, strings.Join(k.Operations, ", "))
		}
	}
	return nil
}
