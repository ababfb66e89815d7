package discover

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"time"
)

// DNS are the servers behind a name: all of its addresses, or its services.
type DNS struct {
	Name     string // the system's search domains hold, unless it ends with a dot
	Services bool   // SRV records (RFC 2782), with ports, weights and priorities, instead of A and AAAA
	Server   string // the name server to ask, host:port; "" is the system's
	Every    time.Duration
	Timeout  time.Duration
}

// Watch implements Source. A name that has no records is an error: whoever had some keeps them.
func (d DNS) Watch(ctx context.Context, tell func([]Member, error)) {
	r := &net.Resolver{}
	if d.Server != "" {
		r.PreferGo = true
		r.Dial = func(ctx context.Context, network, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, network, d.Server)
		}
	}
	read := d.addresses
	if d.Services {
		read = d.services
	}
	Poll{d.Every, d.Timeout, func(ctx context.Context) ([]Member, error) { return read(ctx, r) }}.Watch(ctx, tell)
}

var errNone = errors.New("the name has no records")

func (d DNS) addresses(ctx context.Context, r *net.Resolver) ([]Member, error) {
	found, err := r.LookupNetIP(ctx, "ip", d.Name)
	if err != nil {
		return nil, fmt.Errorf("resolving %s: %w", d.Name, err)
	}
	if len(found) == 0 {
		return nil, errNone
	}
	var all []Member
	for _, ip := range found {
		all = append(all, Member{Address: ip.Unmap().WithZone("").String()})
	}
	return all, nil
}

func (d DNS) services(ctx context.Context, r *net.Resolver) ([]Member, error) {
	_, found, err := r.LookupSRV(ctx, "", "", d.Name)
	if err != nil {
		return nil, fmt.Errorf("resolving the services of %s: %w", d.Name, err)
	}
	var all []Member
	for _, s := range found {
		if s.Target == "." { // RFC 2782: the service is decidedly not available
			continue
		}
		all = append(all, Member{Address: net.JoinHostPort(strings.TrimSuffix(s.Target, "."), strconv.Itoa(int(s.Port))),
			Weight: int(s.Weight), Priority: int(s.Priority)})
	}
	if len(all) == 0 {
		return nil, errNone
	}
	return all, nil
}
