package store

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"sluice/handlers/auth"
)

// desk is where sessions lie. All methods may be called concurrently. Texts that are
// returned are the caller's.
type desk interface {
	// openSession keeps a session; of its holder's all but the newest auth.MaxSessions go.
	openSession(ctx context.Context, id auth.SessionID, holder string, text []byte, until time.Time) error
	// findSession returns nil when there is none.
	findSession(ctx context.Context, id auth.SessionID) ([]byte, error)
	// touchSession replaces one that is there; found is false when there is none.
	touchSession(ctx context.Context, id auth.SessionID, text []byte, until time.Time) (found bool, err error)
	endSession(ctx context.Context, id auth.SessionID) error
}

var errNoDesk = errors.New("this store keeps no sessions")

func (s *Store) desk() (desk, error) {
	if d, ok := s.attic.(desk); ok {
		return d, nil
	}
	return nil, errNoDesk
}

// holderOf is whose sessions are counted together.
func holderOf(s *auth.Session) string { return s.Way + " " + s.Name }

// OpenSession is for auth.SessionStore.
func (s *Store) OpenSession(ctx context.Context, id auth.SessionID, session *auth.Session, until time.Time) error {
	text, err := json.Marshal(session)
	if err != nil {
		return err
	}
	d, err := s.desk()
	if err != nil {
		return err
	}
	return d.openSession(ctx, id, holderOf(session), text, until)
}

// FindSession is for auth.SessionStore. A session that cannot be read is none.
func (s *Store) FindSession(ctx context.Context, id auth.SessionID) (*auth.Session, error) {
	d, err := s.desk()
	if err != nil {
		return nil, err
	}
	text, err := d.findSession(ctx, id)
	if err != nil {
		return nil, fmt.Errorf("read a session: %w", err)
	}
	session := new(auth.Session)
	if text == nil || json.Unmarshal(text, session) != nil {
		return nil, auth.ErrNoSession
	}
	return session, nil
}

// TouchSession is for auth.SessionStore.
func (s *Store) TouchSession(ctx context.Context, id auth.SessionID, session *auth.Session, until time.Time) error {
	text, err := json.Marshal(session)
	if err != nil {
		return err
	}
	d, err := s.desk()
	if err != nil {
		return err
	}
	found, err := d.touchSession(ctx, id, text, until)
	if err == nil && !found {
		return auth.ErrNoSession
	}
	return err
}

// EndSession is for auth.SessionStore.
func (s *Store) EndSession(ctx context.Context, id auth.SessionID) error {
	d, err := s.desk()
	if err != nil {
		return err
	}
	return d.endSession(ctx, id)
}
