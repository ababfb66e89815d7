package handlers

import (
	"errors"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"sluice/providers"
	"sluice/ratelimit"
	"sluice/streaming"
)

// Observer tells the outside what became of every answer: in metrics and in one
// access line. It owns its registry; there is no global one.
type Observer struct {
	registry *prometheus.Registry
	access   *AccessLog
	recent   *Recent // answers
	turned   *Recent // requests that came to no answer

	models     sync.Map // names that are labels
	modelCount atomic.Int64

	active    *children[prometheus.Gauge]
	ends      *children[prometheus.Counter]
	duration  *children[prometheus.Observer]
	ttft      *children[prometheus.Observer]
	perToken  *children[prometheus.Observer]
	tokens    *children[prometheus.Counter]
	saved     prometheus.Counter
	unstopped prometheus.Counter
	heartbeat prometheus.Counter
	malformed prometheus.Counter
	repaired  prometheus.Counter
	retries   prometheus.Counter
	refused   *prometheus.CounterVec
	sockets   prometheus.Gauge

	denials        *prometheus.CounterVec
	reservations   prometheus.Gauge
	settleFailures prometheus.Counter
	store          *prometheus.HistogramVec
	money          *prometheus.CounterVec
}

const (
	keptAnswers  = 10_000
	keptRefusals = 1_000
)

// Recent are the answers that ended last.
func (o *Observer) Recent() *Recent { return o.recent }

// Refused are the requests that came to no answer.
func (o *Observer) Refused() *Recent { return o.turned }

// buckets double from the first value to the last, as the OpenTelemetry
// conventions for generative AI advise for times in seconds.
func buckets(first, last float64) []float64 {
	var b []float64
	for v := first; v <= last; v *= 2 {
		b = append(b, v)
	}
	return b
}

// NewObserver returns an observer that writes access lines to log; nil writes none.
func NewObserver(log *AccessLog) *Observer {
	by := []string{"operation", "model"}
	active := gauge("gateway_active_streams", "Answers under way.", "transport")
	ends := counter("gateway_stream_outcome_total", "Answers by how they ended.", "operation", "end")
	duration := histogram("gen_ai_server_request_duration_seconds", "Time from the request to the end of its answer.", buckets(0.01, 700), by...)
	ttft := histogram("gen_ai_server_time_to_first_token_seconds", "Time from the request to the first content.", buckets(0.001, 70), by...)
	perToken := histogram("gen_ai_server_time_per_output_token_seconds", "Time per output token after the first one.", buckets(0.001, 3), by...)
	tokens := counter("gateway_tokens_total", "Tokens by direction; estimated where the upstream did not count.", "type", "model", "estimated")
	o := &Observer{
		registry: prometheus.NewRegistry(), access: log, recent: NewRecent(keptAnswers), turned: NewRecent(keptRefusals),
		active: newChildren(1, active.WithLabelValues), ends: newChildren(2, ends.WithLabelValues),
		duration: newChildren(2, duration.WithLabelValues), ttft: newChildren(2, ttft.WithLabelValues),
		perToken: newChildren(2, perToken.WithLabelValues), tokens: newChildren(3, tokens.WithLabelValues),
		saved:     plain("gateway_tokens_saved_by_cancel_total", "Output tokens that were allowed and not generated because the client had gone."),
		unstopped: plain("gateway_tokens_unstopped_total", "Output tokens that an upstream may have gone on to make for an answer that was left, since it cannot be stopped."),
		heartbeat: plain("gateway_heartbeats_total", "Signs of life sent to waiting clients."),
		malformed: plain("gateway_upstream_malformed_events_total", "Upstream events that were skipped because they were broken."),
		repaired:  plain("gateway_upstream_repaired_events_total", "Upstream events that were mended for strict clients."),
		retries:   plain("gateway_retries_total", "Attempts beyond the first of an answer."),
		refused:   counter("gateway_refused_requests_total", "Requests that came to no answer, by why.", "end"),
		sockets:   prometheus.NewGauge(prometheus.GaugeOpts{Name: "gateway_websocket_connections", Help: "WebSocket connections that are open, with and without answers."}),

		denials:        counter("gateway_limit_denials_total", "Answers that were refused or ended, by the limit that had too little left.", "limit"),
		reservations:   prometheus.NewGauge(prometheus.GaugeOpts{Name: "gateway_limit_reservations_open", Help: "Answers whose cost is reserved and not settled yet."}),
		settleFailures: plain("gateway_settle_failures_total", "Answers whose cost could not be settled."),
		store:          histogram("gateway_redis_duration_seconds", "Time of a question to Redis, by what was asked and whether it was answered.", buckets(0.0001, 7), "operation", "outcome"),
		money:          counter("gateway_cost_dollars_total", "What answers have cost by the configured prices.", "model"),
	}
	o.registry.MustRegister(active, ends, duration, ttft, perToken, tokens, o.saved, o.unstopped, o.heartbeat, o.malformed, o.repaired, o.retries, o.refused, o.sockets,
		o.denials, o.reservations, o.settleFailures, o.store, o.money, collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	if log != nil {
		o.registry.MustRegister(prometheus.NewCounterFunc(prometheus.CounterOpts{
			Name: "gateway_access_lines_dropped_total", Help: "Access lines dropped because the log could not keep up."}, log.Dropped))
	}
	return o
}

func gauge(name, help string, labels ...string) *prometheus.GaugeVec {
	return prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: name, Help: help}, labels)
}

func counter(name, help string, labels ...string) *prometheus.CounterVec {
	return prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, labels)
}

func plain(name, help string) prometheus.Counter {
	return prometheus.NewCounter(prometheus.CounterOpts{Name: name, Help: help})
}

func histogram(name, help string, b []float64, labels ...string) *prometheus.HistogramVec {
	return prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: name, Help: help, Buckets: b}, labels)
}

// Handler serves the metrics.
func (o *Observer) Handler() http.Handler {
	return promhttp.HandlerFor(o.registry, promhttp.HandlerOpts{})
}

// end takes an answer off the list and tells of it: what flowed is counted once, however
// it ended.
func (l *live) end(err error) {
	a := l.account
	l.unlist()
	l.active.Dec()
	f := describe(err)
	r := a.p.Report()
	r.Usage = a.bill.usage
	took := time.Since(r.Start)
	l.observer.count(l.call.req, &r, f.end, took)
	if a.bill.money > 0 {
		l.observer.money.WithLabelValues(l.observer.modelLabel(l.call.req, &r)).Add(float64(a.bill.money) / 1e9)
	}
	req := l.call.req
	line := &accessLine{id: req.ID, op: req.Op.String(), key: l.call.who.Key, remote: l.call.remote, transport: l.call.transport, model: req.Model, stream: req.Stream,
		report: r, end: f.end, err: err, took: took, reserved: a.bill.reserved, money: a.bill.money, limit: limitID(err)}
	l.observer.recent.remember(line, l.call, a.p, &f)
	if l.observer.access != nil {
		l.observer.access.add(line)
	}
}

// refuse tells of a request that came to no answer: no key, a bad body, no such route.
func (o *Observer) refuse(id, remote, route string, f failure) {
	o.refused.WithLabelValues(f.name).Inc()
	o.turned.add(&Finished{ID: id, Remote: remote, Model: route, Start: time.Now(), End: f.name, Status: f.status, Code: f.code, Message: f.message})
	if o.access != nil {
		o.access.add(&accessLine{id: id, remote: remote, model: route[:min(len(route), maxRoute)], end: f.end, err: errors.New(f.message)})
	}
}

// denied counts a denial at each limit that had too little.
func (o *Observer) denied(d *ratelimit.Denied) {
	for _, over := range d.Over {
		o.denials.WithLabelValues(over.Rule.ID).Inc()
	}
}

// StoreTook notes how long a question to the store of the limits took. It may be called
// from any goroutine.
func (o *Observer) StoreTook(operation string, d time.Duration, err error) {
	outcome := "ok"
	if err != nil {
		outcome = "failed"
	}
	o.store.WithLabelValues(operation, outcome).Observe(d.Seconds())
}

// Watch registers a gauge that is read when metrics are asked for. It must be called
// once for a name, before the metrics are served.
func (o *Observer) Watch(name, help string, read func() float64) {
	o.registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, read))
}

// socket counts a WebSocket connection; the function ends it.
func (o *Observer) socket() (end func()) {
	o.sockets.Inc()
	return o.sockets.Dec
}

// maxRoute is how much of a path that leads nowhere is told.
const maxRoute = 256

func (o *Observer) count(req *providers.Request, r *streaming.Report, e end, took time.Duration) {
	op, model := req.Op.String(), o.modelLabel(req, r)
	o.ends.of(op, e.name, "").Inc()
	o.duration.of(op, model, "").Observe(took.Seconds())
	if r.TTFT > 0 && req.Stream {
		o.ttft.of(op, model, "").Observe(r.TTFT.Seconds())
		if n := r.Usage.Completion; n > 1 {
			o.perToken.of(op, model, "").Observe((r.LastToken - r.TTFT).Seconds() / float64(n-1))
		}
	}
	estimated := "false"
	if r.Usage.Estimated {
		estimated = "true"
	}
	if r.Reported || r.TTFT > 0 {
		o.tokens.of("input", model, estimated).Add(float64(r.Usage.Prompt))
		o.tokens.of("output", model, estimated).Add(float64(r.Usage.Completion))
	}
	if e.name == endClientGone.name || e.name == endSlow.name || e.name == endCancelled.name {
		o.saved.Add(float64(max(0, req.MaxTokens()-r.Usage.Completion-r.Unstopped)))
	}
	o.unstopped.Add(float64(r.Unstopped))
	o.heartbeat.Add(float64(r.Heartbeats))
	o.malformed.Add(float64(r.Malformed))
	o.repaired.Add(float64(r.Repaired))
	o.retries.Add(float64(max(0, r.Attempts-1)))
}

// maxModelLabels bounds the time series that callers can make by naming models.
const maxModelLabels = 256

// modelLabel is the caller's name of the model once a target was found for it. Names
// that lead nowhere are "unknown", and with patterns in the configuration, which let
// any name through, those beyond the bound are "other".
func (o *Observer) modelLabel(req *providers.Request, r *streaming.Report) string {
	if r.Target == "" {
		return "unknown"
	}
	if _, ok := o.models.Load(req.Model); ok {
		return req.Model
	}
	if o.modelCount.Add(1) > maxModelLabels {
		return "other"
	}
	o.models.Store(req.Model, true)
	return req.Model
}
