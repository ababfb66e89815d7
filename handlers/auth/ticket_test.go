package auth

import (
	"context"
	"encoding/base64"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"sluice/providers"
)

func codeOf(err error) string {
	if e := providers.AsError(err); e != nil {
		return e.Code
	}
	return fmt.Sprint(err)
}

func TestTickets(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		secret := []byte(strings.Repeat("s", 32))
		here := NewTickets(secret, 30*time.Second, NewSpentHere(10))
		who := Principal{Key: "an app"}
		ticket := here.Issue(who)
		if strings.ContainsAny(ticket, `"(),/:;<=>?@[\]{} `) || strings.Contains(ticket, "an app") || ticket == here.Issue(who) {
			t.Errorf("%q is no good as a subprotocol", ticket)
		}
		if got, err := here.Redeem(t.Context(), ticket); got.Key != who.Key || err != nil {
			t.Errorf("%+v, %v", got, err)
		}
		if _, err := here.Redeem(t.Context(), ticket); codeOf(err) != "ticket_spent" {
			t.Errorf("a second time: %v", err)
		}
		late := here.Issue(who)
		time.Sleep(30*time.Second - time.Millisecond)
		if _, err := here.Redeem(t.Context(), late); err != nil {
			t.Errorf("in the last moment: %v", err)
		}
		time.Sleep(time.Millisecond)
		if _, err := here.Redeem(t.Context(), late); codeOf(err) != "ticket_expired" {
			t.Errorf("too late: %v", err)
		}
		for name, other := range map[string]*Tickets{
			"another secret": NewTickets([]byte(strings.Repeat("t", 32)), time.Minute, NewSpentHere(10)),
			"a made-up one":  NewTickets(nil, time.Minute, NewSpentHere(10)),
		} {
			if _, err := here.Redeem(t.Context(), other.Issue(who)); codeOf(err) != "invalid_ticket" {
				t.Errorf("%s: %v", name, err)
			}
		}
	})
}

// TestTamperedTickets changes every bit.
func TestTamperedTickets(t *testing.T) {
	tickets := NewTickets(nil, time.Minute, NewSpentHere(10))
	good := tickets.Issue(Principal{Key: "app"})
	raw, err := base64.RawURLEncoding.DecodeString(good)
	if err != nil {
		t.Fatal(err)
	}
	for i := range raw {
		for bit := range 8 {
			raw[i] ^= 1 << bit
			if _, err := tickets.Redeem(t.Context(), base64.RawURLEncoding.EncodeToString(raw)); codeOf(err) != "invalid_ticket" {
				t.Fatalf("bit %d of byte %d: %v", bit, i, err)
			}
			raw[i] ^= 1 << bit
		}
	}
	for _, text := range []string{"", "a", good[1:], good[:len(good)-1], good + "A", good + "=", " " + good, strings.Repeat("A", 80)} {
		if _, err := tickets.Redeem(t.Context(), text); codeOf(err) != "invalid_ticket" {
			t.Errorf("%q: %v", text, err)
		}
	}
	if _, err := tickets.Redeem(t.Context(), good); err != nil {
		t.Errorf("all the tampering spent the ticket: %v", err)
	}
}

func FuzzRedeem(f *testing.F) {
	tickets := NewTickets([]byte(strings.Repeat("s", 32)), time.Hour, NewSpentHere(10))
	f.Add(tickets.Issue(Principal{Key: "app"})[1:])
	f.Add("")
	f.Fuzz(func(t *testing.T, text string) {
		if who, err := tickets.Redeem(context.Background(), text); err == nil {
			t.Errorf("%q is a ticket of %+v", text, who)
		}
	})
}

// TestSpentIsBounded fills the memory of spent tickets, and lets it forget.
func TestSpentIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const room = 100
		s := NewSpentHere(room)
		spend := func(id string, life time.Duration) (bool, error) {
			return s.Spend(t.Context(), id, time.Now().Add(life))
		}
		for i := range room {
			if first, err := spend(fmt.Sprint(i), time.Duration(1+i%2)*10*time.Second); !first || err != nil {
				t.Fatal(i, first, err)
			}
		}
		if _, err := spend("one more", time.Minute); providers.AsError(err) == nil || providers.AsError(err).Kind != providers.Overloaded {
			t.Errorf("beyond the bound: %v", err)
		}
		if first, err := spend("7", time.Minute); first || err != nil {
			t.Errorf("what is full forgets: %t, %v", first, err)
		}
		time.Sleep(11 * time.Second) // half of them have expired
		if first, err := spend("one more", time.Minute); !first || err != nil {
			t.Errorf("after some expired: %t, %v", first, err)
		}
		if n := len(s.until); n != room/2+1 {
			t.Errorf("%d are kept", n)
		}
		time.Sleep(time.Hour)
		if first, err := spend("much later", time.Minute); !first || err != nil || len(s.until) != 1 {
			t.Errorf("%t, %v, %d kept", first, err, len(s.until))
		}
	})
}
