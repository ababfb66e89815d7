package providertest

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"sluice/providers"
	"sluice/streaming"
)

// record is what one stream has told.
type record struct {
	law
	out      strings.Builder // one line per event
	err      error
	complete bool
	content  map[int]*strings.Builder // by choice, as bytes
	dropped  string                   // what Meta said of parameters
	batches  int
	progress streaming.Report
}

// kinds names events in golden files.
var kinds = [...]string{"lifecycle", "meta", "text", "reasoning", "tool", "stop", "usage", "whole", "bytes"}

// droppedHeader names parameters that an upstream was not sent.
const droppedHeader = "X-Sluice-Dropped-Params"

// listen ranges over a stream until it ends, or for most batches when most is not 0.
func listen(src streaming.Stream, p *streaming.Progress, most int) *record {
	r := &record{content: map[int]*strings.Builder{}}
	for batch, err := range src {
		r.batch(batch, err)
		if err != nil {
			r.err = err
			continue // what comes behind it is a fault that law tells
		}
		for i := range batch {
			r.add(&batch[i])
		}
		if r.batches++; most > 0 && r.batches == most {
			return r
		}
		spoil(batch)
	}
	r.complete = r.err == nil
	r.end(r.err)
	r.progress = p.Report()
	return r
}

// spoil overwrites what is no longer valid behind a step.
func spoil(batch []streaming.Event) {
	for i := range batch {
		for j := range batch[i].Raw {
			batch[i].Raw[j] = '#'
		}
		batch[i] = streaming.Event{Kind: streaming.Whole, Text: "spoiled"}
	}
}

func (r *record) add(ev *streaming.Event) {
	r.event(ev)
	r.write(ev)
	if ev.Meta != nil && ev.Meta.Header.Get(droppedHeader) != "" {
		r.dropped = ev.Meta.Header.Get(droppedHeader)
	}
	if !ev.Kind.Commits() {
		return
	}
	c := r.content[ev.Index]
	if c == nil {
		c = &strings.Builder{}
		r.content[ev.Index] = c
	}
	fmt.Fprintf(c, "%s%s%s", ev.Raw, ev.Text, ev.Stop)
	if ev.Tool != nil {
		fmt.Fprintf(c, "%d%s%s", ev.Tool.Index, ev.Tool.Name, ev.Tool.Args) // ids may be made up
	}
}

func (r *record) write(ev *streaming.Event) {
	r.out.WriteString(kinds[ev.Kind])
	r.writeMeta(ev.Meta)
	if ev.Stop != "" {
		r.out.WriteString(" stop=" + ev.Stop)
	}
	if u := ev.Usage; u != nil {
		fmt.Fprintf(&r.out, " usage=%d+%d", u.Prompt, u.Completion)
		if u.Raw == nil && u.Cached+u.Reasoning > 0 {
			fmt.Fprintf(&r.out, " cached=%d reasoning=%d", u.Cached, u.Reasoning)
		}
	}
	switch {
	case ev.Raw != nil:
		fmt.Fprintf(&r.out, " [%d] %s", ev.Index, ev.Raw)
	case ev.Kind.Commits():
		fmt.Fprintf(&r.out, " [%d]", ev.Index)
		if ev.Text != "" {
			fmt.Fprintf(&r.out, " %q", ev.Text)
		}
		if c := ev.Tool; c != nil {
			fmt.Fprintf(&r.out, " call=%d id=%s name=%s args=%q", c.Index, c.ID, c.Name, c.Args)
		}
	}
	r.writeLogprobs(ev.Logprobs)
	r.out.WriteByte('\n')
}

func (r *record) writeLogprobs(d *streaming.LogprobData) {
	if d == nil {
		return
	}
	one := func(p *streaming.TokenProb) {
		fmt.Fprintf(&r.out, " %q=%v", p.Token, p.Logprob)
		if p.Bytes != nil {
			fmt.Fprintf(&r.out, " (%x)", p.Bytes)
		}
	}
	r.out.WriteString(" logprobs")
	for i := range d.Tokens {
		one(&d.Tokens[i].TokenProb)
		if top := d.Tokens[i].Top; len(top) > 0 {
			r.out.WriteString(" of")
			for j := range top {
				one(&top[j])
			}
			r.out.WriteByte(';')
		}
	}
}

func (r *record) writeMeta(m *streaming.MetaData) {
	if m == nil {
		return
	}
	fmt.Fprintf(&r.out, " id=%s created=%v model=%s", m.ID, m.Created > 0, m.Model)
	for _, name := range slices.Sorted(maps.Keys(m.Header)) {
		fmt.Fprintf(&r.out, " %s=%q", strings.ToLower(name), m.Header[name])
	}
}

// golden is the text that a golden file holds.
func (r *record) golden() string {
	end := "complete"
	if r.err != nil {
		end = "error of no kind: " + r.err.Error()
		if e := providers.AsError(r.err); e != nil {
			end = fmt.Sprintf("error kind=%d status=%d type=%q code=%q: %s", e.Kind, e.Status, e.Type, e.Code, e.Message)
		}
	}
	return generated(fmt.Sprintf("%s%s\nrepaired %d, malformed %d\n", r.out.String(), end, r.progress.Repaired, r.progress.Malformed))
}

// generated hides the one value that depends on the time of the run.
func generated(text string) string {
	for back := range int64(5) {
		now := strconv.FormatInt(time.Now().Unix()-back, 10)
		text = strings.ReplaceAll(text, `"created":`+now, `"created":NOW`)
	}
	return text
}
