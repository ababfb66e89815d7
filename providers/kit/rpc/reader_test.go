package rpc

import (
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/status"
)

// scripted is the client's side of a stream: send gives a message, or the end.
type scripted struct {
	grpc.ClientStream
	ctx  context.Context
	come chan any // string or error
	read atomic.Int64
}

func (s *scripted) RecvMsg(m any) error {
	select {
	case <-s.ctx.Done():
		return status.FromContextError(s.ctx.Err()).Err()
	case v := <-s.come:
		if err, ok := v.(error); ok {
			return err
		}
		s.read.Add(1)
		return Codec{}.Unmarshal(mem.BufferSlice{mem.SliceBuffer(v.(string))}, m)
	}
}

// newScripted returns a Reader of a stream that has got values already.
func newScripted(t *testing.T, values ...any) (*Reader, *scripted) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	s := &scripted{ctx: ctx, come: make(chan any, 4*aheadMessages)}
	for _, v := range values {
		s.come <- v
	}
	r := NewReader(ctx, cancel, s)
	t.Cleanup(r.Close)
	return r, s
}

// next are the texts of a batch.
func next(t *testing.T, r *Reader) []string {
	t.Helper()
	batch, err := r.Next()
	if err != nil {
		t.Fatal(err)
	}
	var texts []string
	for _, m := range batch {
		texts = append(texts, string(m))
	}
	return texts
}

func many(from, n int) (values []any) {
	for i := range n {
		values = append(values, strconv.Itoa(from+i))
	}
	return values
}

// TestPaced: while messages come one by one the caller reads them itself.
func TestPaced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, s := newScripted(t)
		go func() {
			for _, v := range append(many(0, 50), io.EOF) {
				time.Sleep(20 * time.Millisecond) // of the bubble's clock
				s.come <- v
			}
		}()
		for i := range 50 {
			if got := next(t, r); !slices.Equal(got, []string{strconv.Itoa(i)}) || r.ahead != nil {
				t.Fatalf("batch %d is %q, a goroutine reads ahead: %t", i, got, r.ahead != nil)
			}
		}
		for range 2 { // an end stays
			if _, err := r.Next(); !errors.Is(err, io.EOF) {
				t.Fatalf("the end is %v", err)
			}
		}
	})
}

// TestTogether: what comes together is one batch, as far as the bound; when messages come
// one by one again the goroutine ends.
func TestTogether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, s := newScripted(t, many(0, quickToBegin+2*aheadMessages)...)
		for i := range quickToBegin {
			if got := next(t, r); len(got) != 1 || got[0] != strconv.Itoa(i) {
				t.Fatalf("first %q", got)
			}
		}
		for i := range 2 {
			synctest.Wait()
			if got := next(t, r); len(got) != aheadMessages || got[0] != strconv.Itoa(quickToBegin+i*aheadMessages) {
				t.Fatalf("batch %d has %d messages from %q", i, len(got), got[0])
			}
		}
		for i := range singlesToEnd + 1 {
			go func() {
				time.Sleep(time.Millisecond)
				s.come <- strconv.Itoa(i)
			}()
			if got := next(t, r); len(got) != 1 || got[0] != strconv.Itoa(i) {
				t.Fatalf("one by one: %q", got)
			}
		}
		synctest.Wait()
		select {
		case <-r.ahead.done:
		default:
			t.Error("the goroutine reads on")
		}
		s.come <- "then"
		if got := next(t, r); got[0] != "then" || r.ahead != nil || cap(r.own.data) > 64 {
			t.Errorf("%q, still ahead %t, with %d bytes", got, r.ahead != nil, cap(r.own.data))
		}
	})
}

// TestBound: a reader whose caller is busy keeps a bounded number of messages and bytes.
func TestBound(t *testing.T) {
	for size, want := range map[int]int64{1: quickToBegin + aheadMessages, 1 << 10: quickToBegin + aheadBytes>>10, 1 << 20: quickToBegin + 1} {
		synctest.Test(t, func(t *testing.T) {
			var values []any
			for range aheadMessages + 20 {
				values = append(values, strings.Repeat("x", size))
			}
			r, s := newScripted(t, values...)
			for range quickToBegin {
				next(t, r)
			}
			synctest.Wait()
			if got := s.read.Load(); got != want {
				t.Errorf("%d messages of %d bytes are read, want %d", got, size, want)
			}
			next(t, r)
			synctest.Wait()
			if got := s.read.Load(); got <= want {
				t.Errorf("%d messages of %d bytes are read when there is room again", got, size)
			}
		})
	}
}

// TestEnds: an error comes behind the messages before it; a cancelled call ends at once,
// and nothing of it runs any more.
func TestEnds(t *testing.T) {
	fault := status.Error(codes.Internal, "x")
	synctest.Test(t, func(t *testing.T) {
		r, _ := newScripted(t, append(many(0, 10), fault)...)
		var got []string
		for batch, err := r.Next(); ; batch, err = r.Next() {
			synctest.Wait()
			for _, m := range batch {
				got = append(got, string(m))
			}
			if err != nil {
				if !errors.Is(err, fault) || len(got) != 10 || len(batch) != 0 {
					t.Errorf("%v behind %q", err, got)
				}
				return
			}
		}
	})
	synctest.Test(t, func(t *testing.T) {
		r, _ := newScripted(t, append(many(0, 10), io.EOF)...)
		for range quickToBegin {
			next(t, r)
		}
		synctest.Wait()
		r.cancel()
		if batch, err := r.Next(); status.Code(err) != codes.Canceled || batch != nil {
			t.Errorf("%v, %v behind a cancel", batch, err)
		}
	})
	for name, values := range map[string][]any{"waiting": many(0, quickToBegin), "full": many(0, 3*aheadMessages), "at the end": append(many(0, quickToBegin), io.EOF), "before it": nil} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { // which fails when a goroutine stays
				r, s := newScripted(t, values...)
				for range min(quickToBegin, len(values)) {
					next(t, r)
				}
				synctest.Wait()
				before := s.read.Load()
				r.Close()
				if r.ahead != nil {
					select {
					case <-r.ahead.done:
					default:
						t.Error("the goroutine has not ended with Close")
					}
				}
				if s.read.Load() != before {
					t.Error("it reads on")
				}
			})
		})
	}
}

// TestOrder reads many messages that come in any rhythm.
func TestOrder(t *testing.T) {
	const n = 20000
	r, s := newScripted(t)
	go func() {
		for i := range n {
			s.come <- strconv.Itoa(i)
			switch rand.IntN(200) {
			case 0:
				time.Sleep(20 * time.Microsecond)
			case 1:
				runtime.Gosched()
			}
		}
		s.come <- io.EOF
	}()
	for i := 0; ; {
		batch, err := r.Next()
		for _, m := range batch {
			if string(m) != strconv.Itoa(i) {
				t.Fatalf("%q, want %d", m, i)
			}
			i++
		}
		if err != nil {
			if !errors.Is(err, io.EOF) || i != n {
				t.Fatalf("%v behind %d messages", err, i)
			}
			return
		}
	}
}

// endless always has a message.
type endless struct {
	grpc.ClientStream
	ctx context.Context
	one mem.BufferSlice
}

func (e *endless) RecvMsg(m any) error {
	if err := e.ctx.Err(); err != nil {
		return err
	}
	return Codec{}.Unmarshal(e.one, m)
}

// TestAllocations: what is read ahead is read into the same memory.
func TestAllocations(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		r := NewReader(ctx, cancel, &endless{ctx: ctx, one: mem.BufferSlice{mem.SliceBuffer(" token")}})
		defer r.Close()
		take := func(n int) {
			for n > 0 {
				batch, err := r.Next()
				if err != nil {
					t.Fatal(err)
				}
				n -= len(batch)
				synctest.Wait() // until there is no room
			}
		}
		take(10_000)
		const n = 100_000
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		take(n)
		runtime.ReadMemStats(&after)
		if got := after.Mallocs - before.Mallocs; got > n/50 {
			t.Errorf("%d allocations for %d messages", got, n)
		}
	})
}

// TestBackpressure: a server cannot send more than windows and bounds hold.
func TestBackpressure(t *testing.T) {
	const each, most = 1 << 10, 1000
	sent, full := atomic.Int64{}, make(chan struct{})
	_, base := serve(t, grpc.UnknownServiceHandler(func(_ any, s grpc.ServerStream) error {
		if err := s.RecvMsg(&grpc_health_v1.HealthCheckRequest{}); err != nil {
			return err
		}
		m := &grpc_health_v1.HealthCheckRequest{Service: strings.Repeat("x", each)}
		for range most {
			stuck := time.AfterFunc(time.Second, func() { close(full) })
			if err := s.SendMsg(m); err != nil {
				return err
			}
			if !stuck.Stop() {
				return nil
			}
			sent.Add(1)
		}
		return nil
	}))
	cc, err := Dial(Options{BaseURL: base, Connect: time.Second, TLS: time.Second, Receive: 1 << 20})
	if err != nil {
		t.Fatal(err)
	}
	defer cc.Close()
	r, err := Open(t.Context(), cc, &grpc.StreamDesc{ServerStreams: true}, "/x/Y", &grpc_health_v1.HealthCheckRequest{})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	got := int64(0)
	for range 10 { // it reads ahead by now, or will not
		got += int64(len(next(t, r)))
	}
	select {
	case <-full:
	case <-time.After(20 * time.Second):
		t.Fatal("the server is never held back")
	}
	if n := sent.Load(); n == most {
		t.Errorf("%d messages are sent, %d taken", n, got)
	}
	for {
		batch, err := r.Next()
		got += int64(len(batch))
		if err != nil {
			if !errors.Is(err, io.EOF) || got != sent.Load()+1 {
				t.Errorf("%v behind %d messages of %d", err, got, sent.Load()+1)
			}
			return
		}
	}
}
