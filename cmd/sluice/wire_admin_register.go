package main

import (
	"sluice/handlers/admin"
	"sluice/providers/router/discover"
)

// registry are the servers that register themselves.
type registry struct{ *discovery }

// Register implements admin.Registry.
func (r registry) Register(id string, s admin.Registration) (fresh bool, field string, err error) {
	r.mu.Lock()
	leases := r.leases[s.Upstream]
	r.mu.Unlock()
	if leases == nil {
		return false, "upstream", errNotListed(s.Upstream)
	}
	fresh, err = leases.Put(id, discover.Member{Address: s.Address, Weight: s.Weight, Priority: s.Priority}, s.TTL)
	return fresh, "address", err
}

// Deregister implements admin.Registry.
func (r registry) Deregister(id string) (was bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, leases := range r.leases {
		was = leases.End(id) || was
	}
	return was
}
