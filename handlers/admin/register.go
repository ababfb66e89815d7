package admin

import (
	"net/http"
	"regexp"
	"time"
)

// Registry are the servers that announce themselves, each for a while.
type Registry interface {
	// Register begins the lease of a server, or goes on with it; fresh says that it was not in
	// force before, or that it is another server now. An error names the member of r that is wrong.
	Register(id string, r Registration) (fresh bool, field string, err error)
	// Deregister ends a lease. It returns false when there was none in force.
	Deregister(id string) bool
}

// Registration is a server that announces itself.
type Registration struct {
	Upstream         string // whose list it joins
	Address          string // host:port
	Weight, Priority int
	TTL              time.Duration
}

// Leases are neither so short that a slow heartbeat ends them, nor so long that a dead server stays.
const (
	leastTTL   = 5 * time.Second
	usualTTL   = 30 * time.Second
	mostTTL    = time.Hour
	mostWeight = 1000
)

type registrationJSON struct {
	Upstream string `json:"upstream"`
	Address  string `json:"address"`
	Weight   *int   `json:"weight,omitempty"`
	Priority int    `json:"priority,omitempty"`
	TTL      *int64 `json:"ttl_seconds,omitempty"`
}

type leaseJSON struct {
	ID       string    `json:"id"`
	Upstream string    `json:"upstream"`
	Address  string    `json:"address"`
	Target   string    `json:"server"` // as targets name their upstream
	Weight   int       `json:"weight"`
	Priority int       `json:"priority"`
	Expires  time.Time `json:"expires"`
}

func (s *server) registerRoutes() []route {
	return []route{
		{method: http.MethodPut, path: "/targets/{id}", role: admin, audit: true, handle: s.register},
		{method: http.MethodDelete, path: "/targets/{id}", role: admin, audit: true, handle: s.deregister},
	}
}

// serverID is what servers may call themselves.
var serverID = regexp.MustCompile(`^[A-Za-z0-9._:-]{1,128}$`)

// register is the first sign of life of a server, and each further one.
func (s *server) register(c *call) error {
	id := c.path("id")
	var in registrationJSON
	if err := c.read(&in); err != nil {
		return err
	}
	r := Registration{Upstream: in.Upstream, Address: in.Address, Weight: 1, Priority: in.Priority, TTL: usualTTL}
	if in.Weight != nil {
		r.Weight = *in.Weight
	}
	if in.TTL != nil {
		r.TTL = time.Duration(min(max(*in.TTL, 0), 1<<20)) * time.Second
	}
	switch {
	case s.opt.Registry == nil:
		return notFound("No upstream of this gateway takes registrations: see discovery.from = \"register\".")
	case !serverID.MatchString(id):
		return badField("id", "The id of a server is up to 128 letters, digits and . _ : -")
	case r.Weight < 1 || r.Weight > mostWeight:
		return badField("weight", "The weight is from 1 to %d.", mostWeight)
	case r.Priority < 0 || r.Priority > mostWeight:
		return badField("priority", "The priority is from 0 to %d.", mostWeight)
	case r.TTL < leastTTL || r.TTL > mostTTL:
		return badField("ttl_seconds", "A lease lasts from %d to %d seconds.", int(leastTTL.Seconds()), int(mostTTL.Seconds()))
	}
	fresh, field, err := s.opt.Registry.Register(id, r)
	if err != nil {
		return badField(field, "%s", err)
	}
	out := leaseJSON{ID: id, Upstream: r.Upstream, Address: r.Address, Target: r.Upstream + "@" + r.Address, Weight: r.Weight, Priority: r.Priority, Expires: s.opt.Now().Add(r.TTL).UTC()}
	if !fresh {
		c.same = true // a heartbeat changes nothing
		return c.reply(http.StatusOK, out)
	}
	c.changed("target "+id, nil, out)
	return c.reply(http.StatusCreated, out)
}

// deregister takes a server out that says goodbye: it gets nothing new, and what runs goes on.
func (s *server) deregister(c *call) error {
	id := c.path("id")
	if s.opt.Registry == nil || !s.opt.Registry.Deregister(id) {
		return notFound("No server %q is registered.", id)
	}
	c.changed("target "+id, map[string]string{"id": id}, nil)
	return c.done()
}
