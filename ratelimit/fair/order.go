package fair

import (
	"cmp"
	"slices"
	"time"
)

// But for position, the functions of this file are called with the queue locked.

// tenant finds who calls, or makes them known.
func (q *Queue) tenant(name string) *tenant {
	t := q.tenants[name]
	if t == nil {
		t = &tenant{name: name}
		q.tenants[name] = t
		q.idle++
	}
	return t
}

// counter is the tenant's virtual counter.
func (t *tenant) counter() int64 { return t.used + t.pending }

// lift raises the counter of a tenant that nobody waits for yet to the lowest one in the
// line, or to that of the tenant served last when the line is empty. Estimates of calls that
// run are left out of what it is lifted to: they may turn out much too high, and who was
// lifted stays up there.
func (q *Queue) lift(t *tenant) {
	low := q.last
	for e := q.line.Front(); e != nil; e = e.Next() {
		if o := e.Value.(*tenant); e == q.line.Front() || o.used < low.used {
			low = o
		}
	}
	if t.at == nil && low != nil {
		t.used = max(t.used, low.used)
	}
}

// first is the waiting tenant with the lowest counter; of several, the one that has stood
// in the line for longest.
func (q *Queue) first() (best *tenant) {
	for e := q.line.Front(); e != nil; e = e.Next() {
		if t := e.Value.(*tenant); best == nil || t.counter() < best.counter() {
			best = t
		}
	}
	return best
}

// charge gives the tenant a place.
func (q *Queue) charge(t *tenant, cost int64) {
	if t.running == 0 && t.waiting.Len() == 0 {
		q.idle--
	}
	t.running++
	q.running++
	q.last = t
	t.pending += cost
}

// join puts a call at the end of its tenant's line; nil means that there is no room.
func (q *Queue) join(t *tenant, cost int64) *waiter {
	if q.waiting >= q.opt.Depth && !q.pushOut(t) {
		q.stats.Full++
		q.forget(t)
		return nil
	}
	if t.running == 0 && t.waiting.Len() == 0 {
		q.idle--
	}
	q.lift(t)
	if t.at == nil {
		t.at = q.line.PushBack(t)
	}
	w := &waiter{tenant: t, cost: cost, arrived: time.Now(), ready: make(chan struct{})}
	w.at = t.waiting.PushBack(w)
	q.waiting++
	return w
}

// pushOut turns away the last call of the tenant that has the most in the line, if t would
// still have fewer: or else who calls most would own a line that is full.
func (q *Queue) pushOut(t *tenant) bool {
	var most *tenant
	for e := q.line.Front(); e != nil; e = e.Next() {
		if o := e.Value.(*tenant); most == nil || o.waiting.Len() > most.waiting.Len() {
			most = o
		}
	}
	if most == nil || most.waiting.Len() < t.waiting.Len()+2 {
		return false
	}
	w := most.waiting.Back().Value.(*waiter)
	q.remove(w)
	q.stats.Full++
	w.outcome = ErrFull
	close(w.ready)
	return true
}

// remove takes a call out of the line.
func (q *Queue) remove(w *waiter) {
	t := w.tenant
	t.waiting.Remove(w.at)
	w.at = nil
	q.waiting--
	if t.waiting.Len() > 0 {
		return
	}
	q.line.Remove(t.at)
	t.at = nil
	if t.running == 0 {
		q.idle++
	}
}

// free corrects the tenant's counter by what its call used, and gives the place to who is next.
func (q *Queue) free(t *tenant, cost, used int64) {
	t.pending -= cost
	t.used += max(used, 0)
	t.running--
	q.running--
	if t.running == 0 && t.waiting.Len() == 0 {
		q.idle++
	}
	q.hand()
	q.forget(t)
}

// hand gives out the places that are free.
func (q *Queue) hand() {
	for q.running < q.opt.Places && q.waiting > 0 {
		q.serve(q.first())
	}
}

// serve gives a place to the tenant's call that has waited longest.
func (q *Queue) serve(t *tenant) {
	w := t.waiting.Front().Value.(*waiter)
	q.charge(t, w.cost)
	q.remove(w)
	if t.at != nil {
		q.line.MoveToBack(t.at)
	}
	q.stats.Served++
	q.stats.Waited += time.Since(w.arrived)
	close(w.ready)
}

// forget bounds what is remembered of tenants without a call: half of them go, those with
// the lowest counters. t had a call until now.
func (q *Queue) forget(t *tenant) {
	if t.running > 0 || t.waiting.Len() > 0 || q.idle <= maxIdle {
		return
	}
	idle := make([]*tenant, 0, q.idle)
	for _, o := range q.tenants {
		if o.running == 0 && o.waiting.Len() == 0 {
			idle = append(idle, o)
		}
	}
	slices.SortFunc(idle, func(a, b *tenant) int { return cmp.Compare(a.used, b.used) })
	for _, o := range idle[:len(idle)/2] {
		delete(q.tenants, o.name)
		q.idle--
	}
}

// position is how many calls are served until w is, itself included, if nothing changes; 0
// means that it waits no longer. A call is served when its tenant's counter, with the calls
// before it, is the lowest.
func (q *Queue) position(w *waiter) int {
	q.mu.Lock()
	defer q.mu.Unlock()
	if w.at == nil {
		return 0
	}
	at, mark := 1, w.tenant.counter()
	for c := w.tenant.waiting.Front(); c != w.at; c = c.Next() {
		mark += c.Value.(*waiter).cost
		at++
	}
	first := true // until w's tenant, those with the same mark are served before it
	for e := q.line.Front(); e != nil; e = e.Next() {
		t := e.Value.(*tenant)
		if t == w.tenant {
			first = false
			continue
		}
		from := t.counter()
		for c := t.waiting.Front(); c != nil && (from < mark || from == mark && first); c = c.Next() {
			from += c.Value.(*waiter).cost
			at++
		}
	}
	return at
}
