package main

import (
	"context"
	"crypto/tls"
	"fmt"
	"log/slog"
	"net/http"
	"sync/atomic"

	"sluice/handlers"
	"sluice/handlers/auth"
	"sluice/providers/router"
	"sluice/ratelimit"
	"sluice/ratelimit/fair"
)

// generation is all that is built from one configuration. Answers end on the one that they
// began with; what lasts longer is in lasting. It is read only once it serves.
type generation struct {
	number  int64
	cfg     *Config
	full    *Config // cfg with the servers that were found
	api     *handlers.Server
	quota   handlers.Quota
	catalog *router.Catalog
	router  *router.Router
	routes  *router.Rules
	links   *links
	lines   map[string]*fair.Queue // by model, where answers are bounded
	keys    *auth.Keys
	madeUp  string // a key, where none are configured
	rules   []ratelimit.Rule
	cert    *tls.Certificate // nil: no TLS

	stop  context.CancelFunc // of its work in the background
	ended chan struct{}      // closed when that is over
	uses  atomic.Int64       // by answers, and 1 while it is the newest
	idle  func()             // called when the last use has ended
}

// take begins a use, unless the last one has ended.
func (g *generation) take() bool {
	for n := g.uses.Load(); n > 0; n = g.uses.Load() {
		if g.uses.CompareAndSwap(n, n+1) {
			return true
		}
	}
	return false
}

// leave ends a use.
func (g *generation) leave() {
	if g.uses.Add(-1) == 0 {
		g.idle()
	}
}

// front hands each request to the newest generation. It outlives them all.
type front struct{ newest atomic.Pointer[generation] }

// take is the newest generation; who is done with it leaves it.
func (f *front) take() *generation {
	for {
		g := f.newest.Load()
		if g.take() || g == f.newest.Load() { // the last one has been closed: the gateway has stopped
			return g
		}
	}
}

func (f *front) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	g := f.take()
	defer g.leave()
	g.api.ServeHTTP(w, r)
}

// current implements handlers.Options.Newest.
func (f *front) current() (*handlers.Server, func()) {
	g := f.take()
	return g.api, g.leave
}

// lasting is what all generations of a process share: it is made once.
type lasting struct {
	front
	version   string
	log       *slog.Logger
	level     *slog.LevelVar // of log
	observer  *handlers.Observer
	drain     *handlers.Drain
	quota     *quota
	keys      *keyring
	places    *router.Places
	discovery *discovery
	shadows   *router.Shadows
	cert      atomic.Pointer[tls.Certificate]
	// operators are who may use the admin API; nil without it.
	operators atomic.Pointer[operators]
	older     atomic.Int64 // generations that were replaced and still run answers
}

// watch tells of the generations. It is called once, and l has one when metrics are served.
func (l *lasting) watch() {
	o := l.observer
	o.Watch("gateway_queue_waiting", "Answers that wait for a place of their model.", l.waiting)
	o.Watch("gateway_shadow_running", "Copies of calls that run.", func() float64 { return float64(l.shadows.Running()) })
	o.Watch("gateway_shadow_dropped", "Copies of calls that were not made since there were enough.", func() float64 { return float64(l.shadows.Dropped()) })
	o.Watch("gateway_config_generation", "How many configurations were in force since the start.", func() float64 {
		return float64(l.newest.Load().number)
	})
	o.Watch("gateway_config_generations_old", "Configurations that were replaced and still have running answers.", func() float64 {
		return float64(l.older.Load())
	})
}

func (l *lasting) waiting() (n float64) {
	for _, q := range l.newest.Load().lines {
		n += float64(q.Stats().Waiting)
	}
	return n
}

// build makes a generation of a configuration that has been checked. Nothing that runs
// notices: what is shared changes when it is put in force. old is nil at the start.
func (l *lasting) build(c *Config, old *generation) (g *generation, err error) {
	g = &generation{number: 1, cfg: c}
	g.keys, g.madeUp = newKeys(c, l.keys)
	if old != nil {
		g.number = old.number + 1
	}
	for _, r := range limitRules(c) {
		g.rules = append(g.rules, *r)
	}
	if err := ratelimit.CheckRules(g.rules); err != nil {
		return nil, err
	}
	for i := range c.Keys {
		if err := checkKeyRules(&c.Keys[i]); err != nil {
			return nil, err
		}
	}
	if g.cert, err = certificate(c); err != nil {
		return nil, err
	}
	g.quota = l.quota.handlers
	g.quota.Prices, g.quota.PriceAt, g.quota.Tokens = newPrices(c), targetPrices(c), newEstimator(c)
	g.lines = newLines(c, old)
	g.full = l.discovery.expand(c)
	g.links = newLinks(g.full, l.version, old)
	g.catalog = newCatalog(g.full, g.links)
	g.quota.Base = g.catalog.Base
	if old != nil {
		g.catalog.Inherit(old.catalog, func(upstream string) bool { return g.to(upstream) == old.to(upstream) })
	}
	g.router, g.routes = newRouter(l, g), newRoutes(c, g.catalog)
	g.api = newHandlers(l, g)
	g.uses.Store(1)
	return g, nil
}

// put puts a generation in force that was built over the newest one. It is called by one
// goroutine at a time.
func (l *lasting) put(g *generation) error {
	if err := l.quota.rules.Replace(g.rules); err != nil {
		g.links.release()
		return err
	}
	ctx, stop := context.WithCancel(context.Background())
	g.stop = stop
	old := l.newest.Load()
	g.idle = func() {
		l.older.Add(-1)
		g.links.release()
	}
	l.places.Bound(placesAt(g.full))
	l.shadows.Bound(l.copies(g.cfg))
	for i := range g.cfg.Models {
		if m := &g.cfg.Models[i]; m.MaxRunning > 0 {
			g.lines[m.Name].Resize(lineOf(m))
		}
	}
	l.keys.replace(g.keys)
	if o := l.operators.Load(); o != nil {
		if err := o.replace(g.cfg); err != nil {
			l.log.Error("the users of the admin API stay as they were", slog.Any("error", err)) // they have been checked
		}
	}
	l.cert.Store(g.cert)
	l.level.Set(levelOf(g.cfg))
	l.newest.Store(g)
	g.run(ctx)
	l.discovery.follow(g.cfg)
	if old != nil {
		l.older.Add(1)
		old.stop()
		old.links.retire(g.links)
		old.leave()
	}
	return nil
}

// run starts what works in the background until ctx ends.
func (g *generation) run(ctx context.Context) {
	g.ended = make(chan struct{})
	go func() {
		defer close(g.ended)
		g.catalog.Run(ctx)
	}()
}

// close ends the newest generation, after the last answer.
func (l *lasting) close() {
	if g := l.newest.Load(); g != nil {
		l.older.Add(1)
		g.stop()
		<-g.ended
		g.router.Wait()
		g.links.retire(nil)
		g.leave()
	}
}

// certificate loads what the API is served with over TLS. Its files may have changed since
// they were checked.
func certificate(c *Config) (*tls.Certificate, error) {
	s := &c.Server
	if s.TLSCert == "" {
		return nil, nil
	}
	cert, err := tls.LoadX509KeyPair(s.TLSCert, s.TLSKey)
	if err != nil {
		return nil, fmt.Errorf("server.tls_cert: %w", err)
	}
	return &cert, nil
}

func levelOf(c *Config) (level slog.Level) {
	_ = level.UnmarshalText([]byte(c.Log.Level)) // checked with the configuration
	return level
}
