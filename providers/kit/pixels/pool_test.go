package pixels

import (
	"bytes"
	"context"
	"errors"
	"image"
	"image/png"
	"testing"
	"testing/synctest"
	"time"
)

// TestPoolOrder: decoders and memory are given in order of arrival, and both bound.
func TestPoolOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := NewPool(Limits{Decoders: 2, Memory: 100, Waiting: 10})
		first, _ := p.acquire(t.Context(), 60)
		order := make(chan int, 3)
		for i, need := range []int64{50, 10, 1000} { // the last one is more than there is
			go func() {
				release, err := p.acquire(t.Context(), need)
				if err != nil {
					t.Error(err)
					return
				}
				order <- i
				release()
			}()
			synctest.Wait()
		}
		if len(order) != 0 {
			t.Fatal("somebody overtook who waited for memory")
		}
		first()
		synctest.Wait()
		if a, b, last := <-order, <-order, <-order; a+b != 1 || last != 2 {
			t.Errorf("the order was %d, %d, %d", a, b, last)
		}
		if p.free != 2 || p.memory != 100 {
			t.Errorf("%d decoders and %d bytes came back", p.free, p.memory)
		}
	})
}

func TestPoolBusy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := NewPool(Limits{Decoders: 1, Memory: 100, Waiting: 1})
		release, err := p.acquire(t.Context(), 1)
		if err != nil {
			t.Fatal(err)
		}
		cause := errors.New("gone")
		ctx, cancel := context.WithCancelCause(t.Context())
		left := make(chan error)
		go func() {
			_, err := p.acquire(ctx, 1)
			left <- err
		}()
		synctest.Wait()
		if _, err := p.acquire(t.Context(), 1); !errors.Is(err, ErrBusy) {
			t.Errorf("a second one may wait: %v", err)
		}
		cancel(cause)
		if err := <-left; !errors.Is(err, cause) {
			t.Errorf("who left got %v", err)
		}
		release()
		if again, err := p.acquire(t.Context(), 100); err != nil {
			t.Error(err)
		} else {
			again()
		}
	})
}

// TestDecodeEnds: a decoder that runs stops reading when its caller has gone.
func TestDecodeEnds(t *testing.T) {
	cause := errors.New("gone")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(cause)
	data := file(t, "noise.png")
	info, err := Inspect(data)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := decode(ctx, data, info); !errors.Is(err, cause) {
		t.Errorf("%v", err)
	}
}

// TestPoolUnderLoad: many decode at once, some leave, and everything comes back.
func TestPoolUnderLoad(t *testing.T) {
	p := NewPool(Limits{Pixels: 1 << 20, Decoders: 2, Memory: 4096, Waiting: 100})
	data, spec := file(t, "noise.png"), Spec{Width: 8, Height: 8}
	done := make(chan error, 64)
	for i := range cap(done) {
		go func() {
			ctx, cancel := context.WithCancel(context.Background())
			if i%3 == 0 {
				time.AfterFunc(time.Duration(i)*20*time.Microsecond, cancel)
			}
			defer cancel()
			_, err := p.Tensor(ctx, data, &spec, make([]byte, spec.Size()))
			if i%3 == 0 && errors.Is(err, context.Canceled) {
				err = nil
			}
			done <- err
		}()
	}
	for range cap(done) {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	if p.free != 2 || p.memory != 4096 || len(p.queue) != 0 {
		t.Errorf("left: %d decoders, %d bytes, %d waiting", p.free, p.memory, len(p.queue))
	}
}

// Pools that come of one another share what images are decoded with, and nothing else.
func TestWithPixels(t *testing.T) {
	large := NewPool(Limits{Pixels: 100, Decoders: 1, Memory: 100})
	small := large.WithPixels(5)
	release, err := large.acquire(t.Context(), 60)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := small.acquire(t.Context(), 1); !errors.Is(err, ErrBusy) {
		t.Errorf("%v while the one decoder works", err)
	}
	release()
	if again, err := small.acquire(t.Context(), 100); err != nil {
		t.Error(err)
	} else {
		again()
	}
	picture := new(bytes.Buffer)
	if err := png.Encode(picture, image.NewGray(image.Rect(0, 0, 3, 2))); err != nil {
		t.Fatal(err)
	}
	if _, err := large.Inspect(picture.Bytes()); err != nil {
		t.Error(err)
	}
	if _, err := small.Inspect(picture.Bytes()); err == nil {
		t.Error("six pixels pass a limit of five")
	}
}
