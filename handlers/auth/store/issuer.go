package store

import "sluice/handlers/auth"

var _ auth.Issuer = (*Store)(nil)

// Caller is Verify for who needs no more than the principal; its Serial is that of the
// secret.
func (s *Store) Caller(t auth.Token) (auth.Principal, error) {
	k, serial, err := s.Verify(&t)
	if err != nil {
		return auth.Principal{}, err
	}
	who := k.caller
	who.Serial = serial
	return who, nil
}

// Named finds who calls with a key by its id. Errors are ErrUnknown, ErrDisabled, ErrExpired
// and ErrNewer.
func (s *Store) Named(id auth.KeyID) (auth.Principal, error) {
	k := s.Lookup(id)
	if k == nil {
		return auth.Principal{}, ErrUnknown
	}
	if err := k.state(s.o.Now()); err != nil {
		return auth.Principal{}, err
	}
	return k.caller, nil
}
