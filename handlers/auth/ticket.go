package auth

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"sync"
	"time"

	"sluice/providers"
)

// Spender remembers which tickets have been used.
type Spender interface {
	// Spend notes a ticket that is valid until then. first is false when it was spent before.
	Spend(ctx context.Context, id string, until time.Time) (first bool, err error)
}

// Tickets makes and takes credentials for places where a key would be seen: each is
// for one use, soon. They may be used from any goroutine.
type Tickets struct {
	secret   []byte
	lifetime time.Duration
	spent    Spender
}

// NewTickets signs with a secret that all replicas share; without one it makes one
// up, and tickets are good at this replica only.
func NewTickets(secret []byte, lifetime time.Duration, spent Spender) *Tickets {
	if len(secret) == 0 {
		secret = make([]byte, sha256.Size)
		_, _ = rand.Read(secret)
	}
	return &Tickets{secret: secret, lifetime: lifetime, spent: spent}
}

// Lifetime is how long a new ticket is good for.
func (t *Tickets) Lifetime() time.Duration { return t.lifetime }

// A ticket is base64url, without padding, of a version, an id, the end of its life in
// Unix milliseconds, the serial of the key's secret, the name of the key and the HMAC-SHA256
// (RFC 2104) of all these.
const (
	ticketVersion = 2
	ticketID      = 16
	ticketSerial  = 1 + ticketID + 8
	ticketHead    = ticketSerial + 4
)

var ticketText = base64.RawURLEncoding.Strict()

// Issue makes a ticket in the caller's name.
func (t *Tickets) Issue(who Principal) string {
	b := make([]byte, 1+ticketID, ticketHead+len(who.Key)+sha256.Size)
	b[0] = ticketVersion
	_, _ = rand.Read(b[1:])
	b = binary.BigEndian.AppendUint64(b, uint64(time.Now().Add(t.lifetime).UnixMilli()))
	b = binary.BigEndian.AppendUint32(b, who.Serial)
	b = append(b, who.Key...)
	return ticketText.EncodeToString(append(b, t.sign(b)...))
}

// sign is for tickets alone, whatever else the secret may sign one day.
func (t *Tickets) sign(b []byte) []byte {
	mac := hmac.New(sha256.New, t.secret)
	_, _ = mac.Write([]byte("sluice ticket\x00"))
	_, _ = mac.Write(b)
	return mac.Sum(nil)
}

// Redeem finds the name of the caller behind a ticket and spends it: only Key and Serial are set. The error is Forbidden for a
// ticket that is forged, too old or spent.
func (t *Tickets) Redeem(ctx context.Context, ticket string) (Principal, error) {
	b, err := ticketText.DecodeString(ticket)
	if err != nil || len(b) < ticketHead+sha256.Size {
		return Principal{}, badTicket("invalid_ticket", "The ticket is not one of this gateway's.")
	}
	b, mac := b[:len(b)-sha256.Size], b[len(b)-sha256.Size:]
	if !hmac.Equal(mac, t.sign(b)) || b[0] != ticketVersion {
		return Principal{}, badTicket("invalid_ticket", "The ticket is not one of this gateway's.")
	}
	until := time.UnixMilli(int64(binary.BigEndian.Uint64(b[1+ticketID:])))
	if !time.Now().Before(until) {
		return Principal{}, badTicket("ticket_expired", "The ticket has expired. Ask for a new one at POST /v1/tickets.")
	}
	first, err := t.spent.Spend(ctx, string(b[1:1+ticketID]), until)
	if err != nil {
		return Principal{}, err
	}
	if !first {
		return Principal{}, badTicket("ticket_spent", "The ticket has been used. Ask for a new one at POST /v1/tickets.")
	}
	return Principal{Key: string(b[ticketHead:]), Serial: binary.BigEndian.Uint32(b[ticketSerial:])}, nil
}

func badTicket(code, message string) error {
	return &providers.Error{Kind: providers.Forbidden, Code: code, Message: message}
}

// SpentHere is a Spender for one replica. When it is full of tickets that have not
// expired it takes no more, and fails with Overloaded.
type SpentHere struct {
	mu    sync.Mutex
	room  int
	until map[string]time.Time
	sweep time.Time // when the next of them may have expired
}

// NewSpentHere remembers so many tickets at once.
func NewSpentHere(room int) *SpentHere {
	return &SpentHere{room: room, until: map[string]time.Time{}}
}

// Spend notes a ticket.
func (s *SpentHere) Spend(_ context.Context, id string, until time.Time) (first bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, spent := s.until[id]; spent {
		return false, nil
	}
	if now := time.Now(); len(s.until) >= s.room || now.After(s.sweep) {
		s.forget(now)
	}
	if len(s.until) >= s.room {
		return false, &providers.Error{Kind: providers.Overloaded, Message: "Too many tickets are in use at once. Try again in a moment.", RetryAfter: time.Second}
	}
	s.until[id] = until
	if len(s.until) == 1 {
		s.sweep = until
	}
	return true, nil
}

// forget drops what has expired.
func (s *SpentHere) forget(now time.Time) {
	s.sweep = now.Add(time.Minute)
	for id, until := range s.until {
		if now.After(until) {
			delete(s.until, id)
			continue
		}
		if until.Before(s.sweep) {
			s.sweep = until
		}
	}
}
