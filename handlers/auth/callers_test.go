package auth

import (
	"crypto/sha256"
	"errors"
	"net/http"
	"testing"

	"pgregory.net/rapid"

	"sluice/providers"
)

// keyDesk is an Issuer with fixed keys.
type keyDesk struct {
	keys  map[string]Principal // by the whole key
	fails map[KeyID]error
}

func (d keyDesk) Caller(t Token) (Principal, error) {
	if err := d.fails[t.ID()]; err != nil {
		return Principal{}, err
	}
	if who, ok := d.keys[t.Reveal()]; ok {
		return who, nil
	}
	return Principal{}, ErrUnknown
}

func (d keyDesk) Named(id KeyID) (Principal, error) {
	for _, who := range d.keys {
		if who.Key == id.String() {
			who.Serial = 0
			return who, nil
		}
	}
	return Principal{}, ErrUnknown
}

func (d keyDesk) Good(id KeyID, serial uint32) error {
	if err := d.fails[id]; err != nil {
		return err
	}
	for _, who := range d.keys {
		if who.Key == id.String() && who.Serial == serial {
			return nil
		}
	}
	return ErrUnknown
}

func TestCallers(t *testing.T) {
	good, off, late, lost := NewToken(), NewToken(), NewToken(), NewToken()
	issued := keyDesk{
		keys:  map[string]Principal{good.Reveal(): {Key: good.ID().String(), Serial: 3, Name: "app"}},
		fails: map[KeyID]error{off.ID(): ErrDisabled, late.ID(): ErrExpired, lost.ID(): ErrUnavailable},
	}
	odd := "sk-slc-of-my-own"
	c := NewCallers(NewKeys(map[[sha256.Size]byte]Principal{sha256.Sum256([]byte("sk-a")): {Key: "app"}, sha256.Sum256([]byte(odd)): {Key: "odd"}}), issued)
	unknown := NewToken()
	for name, want := range map[string]struct {
		key, who, code string
		kind           providers.ErrorKind
	}{
		"issued": {key: good.Reveal(), who: good.ID().String()}, "static": {key: "sk-a", who: "app"}, "static of our form": {key: odd, who: "odd"},
		"unknown": {key: unknown.Reveal(), kind: providers.Unauthorized}, "mistyped": {key: good.Reveal()[:50], kind: providers.Unauthorized},
		"neither": {key: "sk-b", kind: providers.Unauthorized}, "disabled": {key: off.Reveal(), kind: providers.Forbidden, code: "api_key_disabled"},
		"expired": {key: late.Reveal(), kind: providers.Unauthorized, code: "api_key_expired"}, "lost": {key: lost.Reveal(), kind: providers.Overloaded, code: "keys_unavailable"},
	} {
		who, err := c.Authenticate(http.Header{"Authorization": {"Bearer " + want.key}})
		e := providers.AsError(err)
		if who.Key != want.who || (e == nil) != (want.who != "") || e != nil && (e.Kind != want.kind || e.Code != want.code) {
			t.Errorf("%s: %+v, %v", name, who, err)
		}
	}
	who, err := c.Find(good.Reveal())
	if err != nil || c.Good(&who) != nil {
		t.Fatal(err)
	}
	if now, err := c.Current(who); err != nil || now.Name != "app" || now.Serial != 3 {
		t.Errorf("%+v, %v", now, err)
	}
	who.Serial = 2
	if _, err := c.Current(who); err == nil || c.Good(&who) == nil {
		t.Error("a secret that was replaced is good")
	}
	if _, err := c.Current(Principal{Key: good.ID().String()}); err == nil {
		t.Error("an issued key is found without its secret")
	}
	c.Replace(NewKeys(nil))
	if _, err := c.Find("sk-a"); err == nil {
		t.Error("a key that was taken out of the configuration is good")
	}
	if _, err := NewCallers(NewKeys(nil), nil).Find(good.Reveal()); err == nil {
		t.Error("a key is good where none are issued")
	}
}

// TestSecretReplaced: a key of the configuration that has another secret under the same name is
// another key to who came with the old one.
func TestSecretReplaced(t *testing.T) {
	keys := func(secret string) *Keys {
		return NewKeys(map[[sha256.Size]byte]Principal{sha256.Sum256([]byte(secret)): {Key: "app"}})
	}
	c := NewCallers(keys("sk-old"), nil)
	who, err := c.Find("sk-old")
	if err != nil || !who.Configured() || who.Serial == 0 || c.Good(&who) != nil {
		t.Fatalf("%+v, %v", who, err)
	}
	c.Replace(keys("sk-old"))
	if now, err := c.Current(who); err != nil || now.Key != "app" || c.Good(&who) != nil {
		t.Errorf("a reload that changes nothing: %+v, %v", now, err)
	}
	c.Replace(keys("sk-new"))
	if _, err := c.Current(who); err == nil || c.Good(&who) == nil {
		t.Error("the old secret is good")
	}
	if issued := (Principal{Serial: 1}); issued.Configured() {
		t.Error("an issued key stands in the configuration")
	}
}

// TestOneBit: of all texts only the key itself is the key.
func TestOneBit(t *testing.T) {
	token := NewToken()
	c := NewCallers(NewKeys(nil), keyDesk{keys: map[string]Principal{token.Reveal(): {Key: token.ID().String(), Serial: 1}}})
	rapid.Check(t, func(t *rapid.T) {
		text := []byte(token.Reveal())
		for range rapid.IntRange(1, 3).Draw(t, "changes") {
			text[rapid.IntRange(0, len(text)-1).Draw(t, "at")] ^= byte(rapid.IntRange(1, 255).Draw(t, "by"))
		}
		_, err := c.Find(string(text))
		if same := string(text) == token.Reveal(); same != (err == nil) {
			t.Fatalf("%q: %v", text, err)
		}
	})
}

func TestTwoCredentials(t *testing.T) {
	c := NewCallers(NewKeys(nil), nil)
	for name, h := range map[string]http.Header{
		"both":      {"Authorization": {"Bearer a"}, "Api-Key": {"b"}},
		"header":    {"Authorization": {"Bearer a", "Bearer b"}},
		"api-key":   {"Api-Key": {"a", "b"}},
		"a scheme":  {"Authorization": {"Basic a", "Bearer a"}},
		"and third": {"Authorization": {"Bearer a"}, "Api-Key": {"a", "b"}},
	} {
		_, err := c.Authenticate(h)
		if e := providers.AsError(err); e == nil || e.Kind != providers.BadRequest {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestAllows(t *testing.T) {
	free, k := Principal{}, Principal{May: &Permissions{Models: []string{"gpt-*", "a/b"}, Routes: []string{"chat"}, Transports: []string{"sse"}}}
	for what, ok := range map[string]bool{
		"free": free.AllowsModel("x") && free.AllowsRoute("x") && free.AllowsTransport("ws"),
		"own":  k.AllowsModel("gpt-4/o") && k.AllowsModel("a/b") && k.AllowsRoute("chat") && k.AllowsTransport("sse"),
		"none": !k.AllowsModel("GPT-4") && !k.AllowsModel("") && !k.AllowsRoute("chats") && !k.AllowsTransport("ws"),
	} {
		if !ok {
			t.Error(what)
		}
	}
}

func TestRefusals(t *testing.T) {
	for _, err := range []error{ErrUnknown, errors.New("written by a newer version")} {
		if e := providers.AsError(refusal(err)); e == nil || e.Kind != providers.Unauthorized || e.Message != providers.AsError(wrongKey()).Message {
			t.Errorf("%v is told as %v", err, e)
		}
	}
}
