package auth

import (
	"crypto/sha256"
	"net/http"
	"testing"

	"sluice/providers"
)

func TestAuthenticate(t *testing.T) {
	keys := NewKeys(map[[sha256.Size]byte]Principal{sha256.Sum256([]byte("sk-a")): {Key: "app", Org: "acme"}, sha256.Sum256([]byte("sk-b")): {Key: "bot"}})
	if who, ok := keys.Named("app"); !ok || who.Org != "acme" {
		t.Errorf("by name: %+v, %t", who, ok)
	}
	if who, ok := keys.Named("sk-a"); ok {
		t.Errorf("by the key itself: %+v", who)
	}
	const none = providers.ErrorKind(255)
	for name, c := range map[string]struct {
		header http.Header
		key    string
		kind   providers.ErrorKind
	}{
		"bearer":          {http.Header{"Authorization": {"Bearer sk-a"}}, "app", none},
		"lower case":      {http.Header{"Authorization": {"bearer sk-b"}}, "bot", none},
		"api-key":         {http.Header{"Api-Key": {"sk-b"}}, "bot", none},
		"the same twice":  {http.Header{"Authorization": {"Bearer sk-a"}, "Api-Key": {"sk-a"}}, "app", none},
		"two":             {http.Header{"Authorization": {"Bearer sk-a"}, "Api-Key": {"sk-b"}}, "", providers.BadRequest},
		"none":            {http.Header{}, "", providers.Unauthorized},
		"wrong":           {http.Header{"Authorization": {"Bearer sk-x"}}, "", providers.Unauthorized},
		"prefix of a key": {http.Header{"Authorization": {"Bearer sk-"}}, "", providers.Unauthorized},
		"other scheme":    {http.Header{"Authorization": {"Basic sk-a"}}, "", providers.Unauthorized},
		"empty":           {http.Header{"Authorization": {"Bearer "}}, "", providers.Unauthorized},
	} {
		who, err := keys.Authenticate(c.header)
		e := providers.AsError(err)
		if who.Key != c.key || (err == nil) != (c.kind == none) || e != nil && e.Kind != c.kind {
			t.Errorf("%s: %+v, %v", name, who, err)
		}
	}
}
