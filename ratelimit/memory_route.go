package ratelimit

// maxRoutes bounds what is remembered of subjects, to some hundred bytes each. Beyond it
// all is forgotten, and found again.
const maxRoutes = 4096

// routeKey is where a subject's route is kept; the next of its kind takes its place.
type routeKey struct{ key, model string }

// route is where a subject's calls lead: what matching the rules and finding the buckets
// came to the last time.
type route struct {
	who     Subject
	set     *ruleSet
	buckets []Bucket
	slots   []*slot // of the buckets, all there
}

// serves reports whether the route is also that of another subject's calls.
func (r *route) serves(who *Subject, set *ruleSet) bool {
	if r.set != set || r.who.Key != who.Key || r.who.Model != who.Model || r.who.Org != who.Org ||
		r.who.User != who.User || r.who.Team != who.Team || r.who.Provider != who.Provider ||
		(set.byIP || len(who.Rules) > 0) && r.who.IP != who.IP || !sameSlice(r.who.Rules, who.Rules) {
		return false
	}
	for _, s := range r.slots {
		if s.gone {
			return false
		}
	}
	return true
}

func sameSlice(a, b []*Rule) bool {
	return len(a) == len(b) && (len(a) == 0 || &a[0] == &b[0])
}

// few is how many buckets of one call are handled without allocating.
const few = 8

// room is where the buckets of one call are gathered, without allocating if they are few.
type room struct {
	buckets [few]Bucket
	slots   [few]*slot
	known   bool // they came from a route
}

// enter locks the mutex and finds the buckets of a subject, and their slots, advanced to
// now; nil for those that nobody has taken from.
func (m *Memory) enter(in *room, who *Subject) (buckets []Bucket, slots []*slot, now instant) {
	now = m.clock.read()
	m.mu.Lock()
	m.follow()
	if r := m.routes[routeKey{who.Key, who.Model}]; r != nil && r.serves(who, m.set) {
		for i, s := range r.slots {
			s.rule = r.buckets[i].Rule
			s.advance(now)
		}
		in.known = true
		return r.buckets, r.slots, now
	}
	buckets = m.set.match(in.buckets[:0], who)
	slots = in.slots[:0]
	for i := range buckets {
		s := m.slots[keyOf(&buckets[i])]
		if s != nil {
			s.rule = buckets[i].Rule
			s.advance(now)
		}
		slots = append(slots, s)
	}
	return buckets, slots, now
}

// remember keeps the route of a subject whose slots are all there.
func (m *Memory) remember(who *Subject, buckets []Bucket, slots []*slot) {
	key := routeKey{who.Key, who.Model}
	r := m.routes[key]
	if r == nil {
		if len(m.routes) >= maxRoutes {
			clear(m.routes)
		}
		r = new(route)
		m.routes[key] = r
	}
	r.who, r.set = *who, m.set
	r.buckets = append(r.buckets[:0], buckets...)
	r.slots = append(r.slots[:0], slots...)
}
