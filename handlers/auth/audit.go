package auth

import (
	"context"
	"encoding/json"
	"errors"
	"time"
)

// AuditEntry is one action at the admin API. Nothing in it is a secret.
type AuditEntry struct {
	ID   string    `json:"id"` // orders the entries; the cursor of AuditLog.Read
	At   time.Time `json:"at"`
	Who  string    `json:"who"` // of a failed sign-in the name that was tried
	Role Role      `json:"role,omitempty"`
	Via  string    `json:"via,omitempty"`
	From string    `json:"from,omitempty"` // address
	Node string    `json:"node"`
	// Action is the route, "PATCH /keys/{id}"; On is what it was used on.
	Action string          `json:"action"`
	On     string          `json:"on,omitempty"`
	Before json.RawMessage `json:"before,omitempty"`
	After  json.RawMessage `json:"after,omitempty"`
	Status int             `json:"status"`
	Code   string          `json:"code,omitempty"` // of the error
	// Suppressed is how many failed actions before this one were not written down, because
	// there were too many.
	Suppressed int `json:"suppressed,omitempty"`
}

// ErrCursor means that a cursor is not one of this log's.
var ErrCursor = errors.New("this is no cursor of the audit log")

// AuditLog is append-only: the oldest entries go when it is full, or too old. Its methods may be
// called concurrently. Errors other than ErrCursor mean that it cannot be reached.
type AuditLog interface {
	// Append sets the entry's ID. An entry that it returned nil for is not lost when the
	// process dies.
	Append(ctx context.Context, e *AuditEntry) error
	// Read returns up to limit entries before a cursor, "" for the newest, newest first.
	Read(ctx context.Context, before string, limit int) ([]AuditEntry, error)
}
