package store

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"sluice/handlers/auth"
)

// auditShelf is where the audit log lies. Its methods may be called concurrently.
type auditShelf interface {
	// appendAudit adds an entry, and drops those that are more than so many or older than keep.
	appendAudit(ctx context.Context, text []byte, entries int, keep time.Duration) (id string, err error)
	// readAudit visits entries before a cursor, newest first, until visit returns false; before
	// is "" for the newest. A text is valid until visit returns. The error is auth.ErrCursor
	// for a cursor that is none.
	readAudit(ctx context.Context, before string, limit int, visit func(id string, text []byte) bool) error
}

// AuditLog is the store's auth.AuditLog.
type AuditLog struct {
	shelf   auditShelf
	entries int
	keep    time.Duration
	now     func() time.Time
	warn    func(msg string, args ...any)
}

// Audit returns the log, which keeps so many entries for so long. All replicas say the same.
func (s *Store) Audit(entries int, keep time.Duration) (*AuditLog, error) {
	shelf, ok := s.attic.(auditShelf)
	if !ok {
		return nil, errors.New("this store keeps no audit log")
	}
	return &AuditLog{shelf, max(entries, 1), keep, s.o.Now, s.log.Warn}, nil
}

// Append is for auth.AuditLog.
func (l *AuditLog) Append(ctx context.Context, e *auth.AuditEntry) error {
	e.ID = ""
	text, err := json.Marshal(e)
	if err != nil {
		return err
	}
	id, err := l.shelf.appendAudit(ctx, text, l.entries, l.keep)
	if err != nil {
		return fmt.Errorf("write the audit log: %w", err)
	}
	e.ID = id
	return nil
}

// Read is for auth.AuditLog. An entry that cannot be read is left out.
func (l *AuditLog) Read(ctx context.Context, before string, limit int) ([]auth.AuditEntry, error) {
	entries := make([]auth.AuditEntry, 0, min(limit, 1000))
	since := l.now().Add(-l.keep)
	err := l.shelf.readAudit(ctx, before, limit, func(id string, text []byte) bool {
		var e auth.AuditEntry
		if err := json.Unmarshal(text, &e); err != nil {
			l.warn("an entry of the audit log cannot be read", "id", id, "error", err)
			return true
		}
		if e.At.Before(since) {
			return false
		}
		e.ID = id
		entries = append(entries, e)
		return true
	})
	if err != nil && !errors.Is(err, auth.ErrCursor) {
		err = fmt.Errorf("read the audit log: %w", err)
	}
	return entries, err
}
