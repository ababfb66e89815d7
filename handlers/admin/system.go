package admin

import (
	"net/http"
	"runtime"
	"time"
)

// SystemInfo is what does not change while the gateway runs.
type SystemInfo struct {
	Version string
	Node    string // name of this gateway among its replicas
	Store   string // "memory", "file" or "redis"
	Started time.Time
}

type systemAnswer struct {
	Version    string    `json:"version"`
	Go         string    `json:"go"`
	Node       string    `json:"node"`
	Store      string    `json:"store"`
	Started    time.Time `json:"started"`
	Uptime     float64   `json:"uptime_seconds"`
	Goroutines int       `json:"goroutines"`
	CPUs       int       `json:"cpus"`
}

func (s *server) systemRoutes() []route {
	return []route{
		{method: http.MethodGet, path: "/system", role: viewer, handle: s.system},
	}
}

func (s *server) system(c *call) error {
	i := s.opt.System
	return c.reply(http.StatusOK, systemAnswer{
		Version: i.Version, Go: runtime.Version(), Node: i.Node, Store: i.Store, Started: i.Started.UTC(),
		Uptime: s.opt.Now().Sub(i.Started).Seconds(), Goroutines: runtime.NumGoroutine(), CPUs: runtime.GOMAXPROCS(0),
	})
}
