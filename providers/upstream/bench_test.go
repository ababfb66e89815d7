package upstream

import (
	"bytes"
	"context"
	"net"
	"strings"
	"testing"
)

// BenchmarkExchange is one short answer over a kept connection.
func BenchmarkExchange(b *testing.B) {
	for name, via := range ways {
		b.Run(name, func(b *testing.B) {
			address, _ := rawServer(b, func(conn *net.TCPConn, _ int) bool {
				answerKept(conn)
				return true
			})
			o := kept
			o.Name, o.BaseURL = "up", address
			c := New(o)
			c.via = via(o, c.base)
			defer c.CloseIdle()
			b.ReportAllocs()
			for b.Loop() {
				if err := callOnce(context.Background(), c); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkHead reads the head of a usual answer.
func BenchmarkHead(b *testing.B) {
	text := []byte(okHead + "Date: Thu, 01 Jan 2026 00:00:00 GMT\r\nServer: uvicorn\r\nOpenAI-Processing-Ms: 12\r\nContent-Length: 480\r\n" +
		"Content-Type: application/json\r\nX-Request-Id: 4c9184f37cff01bcdc32dc486ec36961\r\nCache-Control: no-cache, must-revalidate\r\n\r\n")
	src := bytes.NewReader(nil)
	b.ReportAllocs()
	for b.Loop() {
		src.Reset(text)
		h, err := readHead(src)
		if err != nil {
			b.Fatal(err)
		}
		headBuffers.Put(h.buf)
	}
}

// BenchmarkChunk decodes one chunk, as it holds an event.
func BenchmarkChunk(b *testing.B) {
	text := []byte("104\r\n" + strings.Repeat("x", 0x104) + "\r\n")
	p := make([]byte, len(text))
	var d chunks
	b.ReportAllocs()
	for b.Loop() {
		copy(p, text)
		if _, _, err := d.decode(p); err != nil {
			b.Fatal(err)
		}
	}
}
