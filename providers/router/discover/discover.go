// Package discover knows where lists of servers are kept: DNS, files, Consul, etcd, and
// leases that servers take themselves. It tells when a list has changed, and asks nothing of
// the servers in it.
package discover

import (
	"cmp"
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Member is one server of a list.
type Member struct {
	Address  string // host, or host:port where the list tells ports
	Weight   int    // against the others, at least 1
	Priority int    // lower ones go first
	Drained  bool   // it has gone, or is about to: it gets nothing new
}

// Source is a list of servers.
type Source interface {
	// Watch tells the list whenever it has been read, in order and each address once, and errors
	// while it cannot be read, until ctx ends. tell is called from one goroutine at a time.
	Watch(ctx context.Context, tell func([]Member, error))
}

// maxMembers bounds a list.
const maxMembers = 1000

// tidy orders members, and leaves one of each address.
func tidy(all []Member) ([]Member, error) {
	if len(all) > maxMembers {
		return nil, fmt.Errorf("the list has %d members, more than %d", len(all), maxMembers)
	}
	for i := range all {
		if err := checkAddress(all[i].Address); err != nil {
			return nil, err
		}
		all[i].Weight = max(all[i].Weight, 1)
	}
	slices.SortFunc(all, func(a, b Member) int {
		return cmp.Or(cmp.Compare(a.Address, b.Address), cmp.Compare(a.Priority, b.Priority), cmp.Compare(b.Weight, a.Weight))
	})
	return slices.CompactFunc(all, func(a, b Member) bool { return a.Address == b.Address }), nil
}

// checkAddress refuses what is no host, or host and port, of a URL.
func checkAddress(address string) error {
	host := address
	if h, port, err := net.SplitHostPort(address); err == nil {
		if n, err := strconv.Atoi(port); err != nil || n < 1 || n > 65535 {
			return fmt.Errorf("%q has no port from 1 to 65535", address)
		}
		host = h
	}
	if net.ParseIP(host) != nil {
		return nil
	}
	odd := func(r rune) bool {
		return r > 'z' || r < '-' || r > '9' && r < 'A' || r > 'Z' && r < 'a' && r != '_' || r == '/'
	}
	if host == "" || len(host) > 253 || strings.ContainsFunc(host, odd) {
		return fmt.Errorf("%q is no host or host:port", address)
	}
	return nil
}

// Poll is a list that is read again and again.
type Poll struct {
	Every   time.Duration // ± 10 %
	Timeout time.Duration // of one reading; the list stays as it was when it takes longer
	Read    func(ctx context.Context) ([]Member, error)
}

// Watch implements Source.
func (p Poll) Watch(ctx context.Context, tell func([]Member, error)) {
	for ctx.Err() == nil {
		one, cancel := context.WithTimeout(ctx, p.Timeout)
		members, err := p.Read(one)
		cancel()
		if ctx.Err() != nil {
			return
		}
		if err == nil {
			members, err = tidy(members)
		}
		tell(members, err)
		pause(ctx, time.Duration((0.9+0.2*rand.Float64())*float64(p.Every)))
	}
}

// pause waits, unless ctx ends before.
func pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

// again is how long is waited after the n-th failure in a row, from 0: full jitter up to 30 s.
func again(n int) time.Duration {
	return time.Duration(float64(min(time.Second<<min(n, 5), 30*time.Second)) * (0.5 + 0.5*rand.Float64()))
}
