package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"sluice/handlers/auth/store"
)

// reloader puts other configurations in force while the gateway runs: from the file, and
// from what is set over it. A configuration with a mistake changes nothing.
type reloader struct {
	*lasting
	load      *loadOptions
	overrides *store.Overrides

	mu     sync.Mutex // held while a configuration is read, built and put in force
	last   atomic.Pointer[reloadReport]
	states atomic.Pointer[[]overrideState] // what became of the overrides
	good   atomic.Int64                    // when one was last put in force, Unix seconds
	fresh  chan struct{}                   // another configuration is in force
	edited chan struct{}                   // overrides have changed
	stay   func()                          // ends following what may change the configuration
}

// reloadReport is what became of one reload. It is read only.
type reloadReport struct {
	At         time.Time
	Why        string // what it was for
	Err        error  // a *ConfigError, or why it could not be built; nil: it is in force
	Generation int64  // in force now
	Changed    []string
	Restart    []string // keys whose new value only a restart puts in force
	Warnings   []string
	Overrides  []overrideState
}

// newReloader puts the configuration of the start in force, which has been checked, and what
// the store has set over it.
func newReloader(l *lasting, c *Config, load *loadOptions) (*reloader, error) {
	l.discovery = newDiscovery(l.log)
	r := &reloader{lasting: l, load: load, fresh: make(chan struct{}, 1), edited: make(chan struct{}, 1)}
	ctx, cancel := context.WithTimeout(context.Background(), overridesTime)
	defer cancel()
	var err error
	if r.overrides, err = l.keys.store.Overrides(ctx, func() { nudge(r.edited) }); err != nil {
		return nil, err
	}
	report := &reloadReport{At: time.Now(), Why: "start"}
	if over, err := r.overridden(c.document(), report); err == nil {
		over.keepRunning(c)
		c = over
	} else if !errors.Is(err, errNoSource) {
		r.log.Error("what is set over the configuration is not in force", slog.Any("error", err))
	}
	l.discovery.follow(c)
	l.discovery.await(discoveryTime)
	g, err := l.build(c, nil)
	if err == nil {
		r.states.Store(&report.Overrides)
		err = l.put(g)
	}
	if err != nil {
		r.overrides.Close()
		return nil, err
	}
	report.Generation = g.number
	r.warn(report.Overrides)
	r.done(report)
	l.watch()
	r.observe()
	r.stay = r.follow()
	return r, nil
}

// overridesTime bounds how long a start waits for what is set over its configuration.
const overridesTime = 5 * time.Second

func nudge(c chan<- struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

func (r *reloader) observe() {
	o := r.observer
	o.Watch("gateway_config_last_reload_successful", "1 when the configuration that was read last is in force, 0 when it had a mistake.", func() float64 {
		if r.last.Load().Err != nil {
			return 0
		}
		return 1
	})
	o.Watch("gateway_config_last_reload_success_timestamp_seconds", "When a configuration was last put in force.", func() float64 {
		return float64(r.good.Load())
	})
	o.Watch("gateway_config_restart_needed", "Keys of the configuration whose new value waits for a restart.", func() float64 {
		return float64(len(r.last.Load().Restart))
	})
	o.Watch("gateway_config_overrides", "Values that are set over the configuration.", func() float64 {
		return float64(len(*r.states.Load()))
	})
	o.Watch("gateway_discovery_servers", "Servers in the lists of upstreams.", func() float64 {
		n, _ := r.discovery.count()
		return float64(n)
	})
	o.Watch("gateway_discovery_failing", "Lists of servers that cannot be read at present.", func() float64 {
		_, n := r.discovery.count()
		return float64(n)
	})
	o.Watch("gateway_config_overrides_ignored", "Values that are set over the configuration and cannot be in force.", func() (n float64) {
		for _, s := range *r.states.Load() {
			if s.Why != "" {
				n++
			}
		}
		return n
	})
}

func (r *reloader) done(report *reloadReport) *reloadReport {
	if report.Err == nil {
		r.good.Store(report.At.Unix())
	}
	r.last.Store(report)
	return report
}

// reload reads the configuration and puts it in force. The report says what became of it.
func (r *reloader) reload(why string) *reloadReport {
	r.mu.Lock()
	defer r.mu.Unlock()
	report := &reloadReport{At: time.Now(), Why: why}
	report.Err = r.renew(report, true, func() (*document, error) {
		if r.load == nil {
			return nil, errNoSource
		}
		return r.load.read()
	})
	r.tell(report)
	return r.done(report)
}

// apply puts the overrides in force as they are now, over what was read last and had no
// mistake.
func (r *reloader) apply(why string) *reloadReport {
	r.mu.Lock()
	defer r.mu.Unlock()
	report := &reloadReport{At: time.Now(), Why: why}
	report.Err = r.renew(report, false, func() (*document, error) { return r.newest.Load().cfg.document(), nil })
	if len(report.Changed) > 0 || report.Err != nil {
		report.Restart = nil // that was told when the file was read
		r.tell(report)
	}
	return report
}

var errNoSource = errors.New("this gateway was started without a configuration that could be read again")

// renew reads, builds and puts in force. Unless always is set, what is as it was stays in
// force. mu is held.
func (r *reloader) renew(report *reloadReport, always bool, read func() (*document, error)) error {
	old := r.newest.Load()
	report.Generation = old.number
	doc, err := read()
	if err != nil {
		return err
	}
	c, err := r.overridden(doc, report)
	if err != nil {
		return err
	}
	report.Restart = c.keepRunning(old.cfg)
	report.Changed = c.changedFrom(old.cfg)
	if !always && len(report.Changed) == 0 {
		r.states.Store(&report.Overrides)
		return nil
	}
	g, err := r.build(c, old)
	if err != nil {
		return err
	}
	if err := r.put(g); err != nil {
		return err
	}
	r.states.Store(&report.Overrides)
	report.Generation = g.number
	nudge(r.fresh)
	return nil
}

// overridden is what a file says, and the layers over it.
func (r *reloader) overridden(doc *document, report *reloadReport) (c *Config, err error) {
	if r.load == nil {
		return nil, errNoSource
	}
	c, report.Overrides, report.Warnings, err = loadOverridden(doc, *r.load, r.overrides.All().Items)
	return c, err
}

// maxTold bounds how many names a line of the log has.
const maxTold = 20

func (r *reloader) tell(report *reloadReport) {
	for _, w := range report.Warnings {
		r.log.Warn(w)
	}
	r.warn(report.Overrides)
	if report.Err != nil {
		r.log.Error("the configuration was not reloaded; the one before stays in force", slog.String("why", report.Why), slog.Any("error", report.Err))
		return
	}
	for _, path := range report.Restart {
		r.log.Warn("a changed key needs a restart; its value stays as it was", slog.String("key", path))
	}
	if len(report.Changed) == 0 {
		r.log.Info("the configuration is what it was", slog.String("why", report.Why))
		return
	}
	changed := report.Changed
	if extra := len(changed) - maxTold; extra > 0 {
		changed = append(changed[:maxTold:maxTold], fmt.Sprintf("and %d more", extra))
	}
	r.log.Info("configuration reloaded", slog.String("why", report.Why), slog.Int64("generation", report.Generation), slog.String("changed", strings.Join(changed, ", ")))
}

// warn tells of overrides that are ignored.
func (r *reloader) warn(states []overrideState) {
	for i := range states {
		if states[i].Why != "" {
			r.log.Warn(states[i].ignored())
		}
	}
}

// close ends the newest generation, after the last answer.
func (r *reloader) close() {
	r.stay()
	r.discovery.close()
	r.overrides.Close()
	r.lasting.close()
}

// follow reloads at SIGHUP, when another gateway has changed the overrides, and when files
// change if that is configured, until stop is called. Later calls of stop do nothing.
func (r *reloader) follow() (stop func()) {
	hup := make(chan os.Signal, 1)
	signal.Notify(hup, syscall.SIGHUP)
	ended, quit := make(chan struct{}), make(chan struct{})
	files, at := newFileWatch(r.log), r.newest.Load()
	files.set(at.cfg)
	go func() {
		defer close(ended)
		defer files.close()
		r.until(quit, hup, files, at)
	}()
	return sync.OnceFunc(func() {
		signal.Stop(hup)
		close(quit)
		<-ended
	})
}

// until is follow's goroutine.
func (r *reloader) until(quit <-chan struct{}, hup <-chan os.Signal, files *fileWatch, at *generation) {
	for {
		select {
		case <-quit:
			return
		case <-hup:
			r.reload("SIGHUP")
		case e := <-files.events():
			if files.matters(e) {
				files.stirred()
			}
			continue
		case err := <-files.errors():
			r.log.Warn("watching files", slog.Any("error", err))
			files.stirred()
			continue
		case <-files.wait.C:
			if !files.changed() {
				continue
			}
			r.reload("a file changed")
		case <-files.look.C:
			if !files.changed() {
				continue
			}
			r.reload("a file changed")
		case <-r.edited:
			r.apply("overrides have changed")
		case <-r.discovery.changed:
			r.discovered()
		case <-r.fresh:
		}
		if g := r.newest.Load(); g != at {
			at = g
			files.set(at.cfg)
		}
	}
}
