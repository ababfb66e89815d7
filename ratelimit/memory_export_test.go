package ratelimit

// Held is how much a Memory holds: buckets, open calls, settled ids and routes.
func (m *Memory) Held() (buckets, calls, settled, routes int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, f := range m.families {
		buckets += len(f.slots)
	}
	if buckets != len(m.slots) {
		panic("slots without a family")
	}
	return buckets, len(m.calls), m.settled.len(), len(m.routes)
}
