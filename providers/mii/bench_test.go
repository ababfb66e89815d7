package mii

import (
	"fmt"
	"testing"
	"time"

	"sluice/providers"
	"sluice/providers/providertest"
	"sluice/streaming"
)

// BenchmarkStream measures one token over a real connection, the server's part of the
// work included: it runs in the same process.
func BenchmarkStream(b *testing.B) {
	const tokens = 2000
	var body []byte
	for i := range tokens {
		body = fmt.Append(body, message(" token", "none", i+1))
	}
	body = fmt.Append(body, message("", "stop", tokens))
	script := &providertest.Script{Body: body}
	p := open(b, options(b, serve(b, script))).Target("m")
	req, err := providers.Parse(providers.Chat, "/chat/completions", "application/json", []byte(`{"model":"m","stream":true,"messages":[{"role":"user","content":"Hi"}]}`), 64)
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		events := 0
		for batch, err := range p.Stream(b.Context(), req, streaming.NewProgress(time.Now())) {
			if err != nil {
				b.Fatal(err)
			}
			events += len(batch)
		}
		if events < tokens {
			b.Fatalf("%d events", events)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/tokens, "ns/event")
}
