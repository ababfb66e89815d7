package router

import "time"

// UpstreamStatus is one upstream at one moment.
type UpstreamStatus struct {
	Name     string
	Local    bool
	Drained  bool
	Declared []string // names and patterns of models
	// Listed are the ids of its newest list, ListedAt when it came, ListError why the last
	// try failed.
	Listed    []string
	ListedAt  time.Time
	ListError string
}

// Upstreams is what is known of all upstreams. It asks none of them.
func (c *Catalog) Upstreams() []UpstreamStatus {
	out := make([]UpstreamStatus, 0, len(c.upstreams))
	for _, u := range c.upstreams {
		out = append(out, u.status())
	}
	return out
}

func (u *listed) status() UpstreamStatus {
	u.mu.Lock()
	defer u.mu.Unlock()
	s := UpstreamStatus{Name: u.Name, Local: u.Local, Drained: u.Drained, Declared: u.Models, ListedAt: u.at}
	for _, m := range u.models {
		s.Listed = append(s.Listed, m.ID)
	}
	if u.err != nil {
		s.ListError = u.err.Error()
	}
	return s
}
