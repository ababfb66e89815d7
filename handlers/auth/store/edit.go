package store

import (
	"context"
	"errors"
	"fmt"
	"time"

	"sluice/handlers/auth"
)

// Create makes a key with the fields that a caller may set; ID, Version, times and secret
// are the store's. The token is told nowhere else and never again. Errors are Problems, ErrFull,
// those of ctx, or wrap ErrUnavailable: then the key may exist, but nobody has its secret.
func (s *Store) Create(ctx context.Context, fields Key) (auth.Token, *Key, error) {
	if s.copy.count.Load() >= int64(s.o.MaxKeys) {
		return auth.Token{}, nil, ErrFull
	}
	token := auth.NewToken()
	now := s.stamp()
	k := fields.clone()
	k.ID, k.Version, k.Created, k.Updated, k.Deleted = token.ID(), 1, now, now, time.Time{}
	k.secrets = []secret{{serial: 1, sum: s.o.Pepper.sum(&token)}}
	k.rest, k.newer = nil, nil
	k, err := s.commit(ctx, k, 0)
	if err != nil {
		return auth.Token{}, nil, err
	}
	return token, k, nil
}

// stamp is the time as it is stored.
func (s *Store) stamp() time.Time { return s.o.Now().UTC().Truncate(time.Millisecond) }

// Update changes the fields that a caller may set. version is that of the key that the
// caller has read, or 0 for whatever there is; change gets a copy of that key and may be
// called again. It is in force in every copy within a second. What a key may do
// applies to calls that begin from then on; calls of a key that is disabled or expires end.
//
// Errors are Problems, ErrConflict, ErrUnknown (also for a deleted key), ErrNewer, that of
// change, those of ctx, or wrap ErrUnavailable: then the edit may have been done.
func (s *Store) Update(ctx context.Context, id auth.KeyID, version uint64, change func(*Key) error) (*Key, error) {
	return s.edit(ctx, id, version, func(k *Key) error {
		fixed := k.clone()
		if err := change(k); err != nil {
			return err
		}
		k.ID, k.Version, k.Created, k.Deleted = fixed.ID, fixed.Version, fixed.Created, fixed.Deleted
		k.secrets, k.rest = fixed.secrets, fixed.rest
		return nil
	})
}

// Rotate gives the key a new secret. The one that it had stays valid for the overlap,
// between 0 and MaxOverlap; one from an earlier rotation ends at once. Errors are those of Update.
func (s *Store) Rotate(ctx context.Context, id auth.KeyID, version uint64, overlap time.Duration) (auth.Token, *Key, error) {
	if overlap < 0 || overlap > MaxOverlap {
		return auth.Token{}, nil, Problems{{"overlap", fmt.Sprintf("want 0 to %d hours", int(MaxOverlap.Hours()))}}
	}
	token := auth.TokenFor(id)
	k, err := s.edit(ctx, id, version, func(k *Key) error {
		last := k.secrets[len(k.secrets)-1]
		next := secret{serial: last.serial + 1, sum: s.o.Pepper.sum(&token)}
		k.secrets = nil
		if overlap > 0 {
			last.until = s.stamp().Add(overlap)
			k.secrets = append(k.secrets, last)
		}
		k.secrets = append(k.secrets, next)
		return nil
	})
	if err != nil {
		return auth.Token{}, nil, err
	}
	return token, k, nil
}

// Delete ends the key for good. Its id, name, owner and times stay known for
// Options.KeepDeleted. Errors are those of Update.
func (s *Store) Delete(ctx context.Context, id auth.KeyID, version uint64) (*Key, error) {
	return s.edit(ctx, id, version, func(k *Key) error {
		*k = Key{
			ID: k.ID, Version: k.Version, Name: k.Name, User: k.User, Team: k.Team, Org: k.Org,
			Created: k.Created, Deleted: s.stamp(),
		}
		if k.Created.IsZero() { // of a newer version, which may say it otherwise
			k.Created = k.Deleted
		}
		return nil
	})
}

const triesToEdit = 5

func (s *Store) edit(ctx context.Context, id auth.KeyID, version uint64, change func(*Key) error) (*Key, error) {
	var err error
	for range triesToEdit {
		var old *Key
		if old, err = s.current(ctx, id, version); err != nil {
			return nil, err
		}
		k := old.clone()
		if err := change(k); err != nil {
			return nil, err
		}
		if k.newer != nil && k.Deleted.IsZero() {
			return nil, ErrNewer
		}
		k.Version, k.Updated = old.Version+1, s.stamp()
		if k, err = s.commit(ctx, k, old.Version); !errors.Is(err, ErrConflict) {
			return k, err
		}
		if err := s.sync(ctx); err != nil {
			return nil, unavailable(ctx, err)
		}
		if version != 0 {
			break
		}
	}
	return nil, err
}

// current finds the key to edit.
func (s *Store) current(ctx context.Context, id auth.KeyID, version uint64) (*Key, error) {
	k := s.Lookup(id)
	if k == nil || k.Version < version {
		if err := s.sync(ctx); err != nil {
			return nil, unavailable(ctx, err)
		}
		k = s.Lookup(id)
	}
	switch {
	case k == nil || !k.Deleted.IsZero():
		return nil, ErrUnknown
	case version != 0 && version != k.Version:
		return nil, ErrConflict
	}
	return k, nil
}

// commit checks and writes one key, and takes it into the copy. It returns the key as it is
// stored.
func (s *Store) commit(ctx context.Context, k *Key, was uint64) (*Key, error) {
	text, stored, err := s.seal(k)
	if err != nil {
		return nil, err
	}
	if err := s.shelf.write(ctx, []edit{{k.ID, was, stored.Version, text}})[0]; err != nil {
		if errors.Is(err, ErrConflict) {
			return nil, ErrConflict
		}
		return nil, unavailable(ctx, err)
	}
	s.apply(stored, sumOf(text), false)
	return stored, nil
}

// seal makes the stored form, and the key that it is read as.
func (s *Store) seal(k *Key) (text []byte, stored *Key, err error) {
	if k.Deleted.IsZero() {
		if err := k.Check(); err != nil {
			return nil, nil, err
		}
		k.Expires = k.Expires.UTC().Truncate(time.Millisecond)
	}
	if text, err = k.encode(); err != nil {
		return nil, nil, err
	}
	if len(text) > maxRecord {
		return nil, nil, Problems{{"key", fmt.Sprintf("all of it takes %d bytes; at most %d are kept", len(text), maxRecord)}}
	}
	stored, err = decode(text)
	return text, stored, err
}

// unavailable wraps what a shelf said, unless the caller's time is up or the pepper is wrong.
func unavailable(ctx context.Context, err error) error {
	if errors.Is(err, ErrPepper) || errors.Is(err, ErrUnavailable) {
		return err
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return fmt.Errorf("%w: %w", ErrUnavailable, err)
}
