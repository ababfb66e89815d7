package pixels

import (
	"context"
	"errors"
	"fmt"
	"sync"
)

// Limits bound what decoding may cost.
type Limits struct {
	Pixels   int64 // of one image; beyond it the image is refused unseen
	Decoders int   // images decoded at once, at least 1
	Memory   int64 // bytes that they hold together; one image alone may have more
	Waiting  int   // images that wait for a decoder; beyond it ErrBusy
}

// ErrBusy says that so many images wait for a decoder already that no further one may.
var ErrBusy = errors.New("too many images wait to be decoded")

// Pool decodes images, a bounded number at a time. It is safe for concurrent use.
type Pool struct {
	pixels int64
	*share
}

// share is what images are decoded with.
type share struct {
	limits Limits

	mu     sync.Mutex
	free   int   // decoders
	memory int64 // bytes
	queue  []*waiter
}

// waiter is one image in the queue. ready is closed when it got its share.
type waiter struct {
	need  int64
	ready chan struct{}
}

// NewPool returns a pool.
func NewPool(l Limits) *Pool {
	l.Decoders = max(l.Decoders, 1)
	l.Memory = max(l.Memory, 1)
	return &Pool{l.Pixels, &share{limits: l, free: l.Decoders, memory: l.Memory}}
}

// WithPixels returns a pool with the decoders, the memory and the queue of this one, and
// a limit of its own for the size of an image.
func (p *Pool) WithPixels(limit int64) *Pool { return &Pool{limit, p.share} }

// Limits are what the pool is bounded by.
func (p *Pool) Limits() Limits {
	l := p.limits
	l.Pixels = p.pixels
	return l
}

// Inspect reads an image's header and holds it against the limit for its size.
func (p *Pool) Inspect(data []byte) (Info, error) {
	info, err := Inspect(data)
	if err != nil {
		return info, err
	}
	if n := int64(info.Width) * int64(info.Height); n > p.pixels {
		return info, fmt.Errorf("the %s is %d x %d pixels, which is more than the limit of %.1f megapixels",
			info.Format, info.Width, info.Height, float64(p.pixels)/(1<<20))
	}
	return info, nil
}

// acquire waits for a decoder and memory, in order of arrival, and returns what gives
// them back. The error is ErrBusy or the cause for which ctx ended.
func (p *share) acquire(ctx context.Context, need int64) (release func(), err error) {
	need = min(need, p.limits.Memory)
	release = func() { p.give(need) }
	p.mu.Lock()
	if len(p.queue) == 0 && p.take(need) {
		p.mu.Unlock()
		return release, nil
	}
	if len(p.queue) >= p.limits.Waiting {
		p.mu.Unlock()
		return nil, ErrBusy
	}
	w := &waiter{need: need, ready: make(chan struct{})}
	p.queue = append(p.queue, w)
	p.mu.Unlock()
	select {
	case <-w.ready:
		return release, nil
	case <-ctx.Done():
		p.leave(w)
		return nil, context.Cause(ctx)
	}
}

// take gets a share when there is one; p.mu is held.
func (p *share) take(need int64) bool {
	if p.free == 0 || p.memory < need {
		return false
	}
	p.free--
	p.memory -= need
	return true
}

func (p *share) give(need int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.free++
	p.memory += need
	p.serve()
}

// serve gives shares to who waits longest; p.mu is held.
func (p *share) serve() {
	for len(p.queue) > 0 && p.take(p.queue[0].need) {
		close(p.queue[0].ready)
		p.queue[0] = nil
		p.queue = p.queue[1:]
	}
}

// leave takes a waiter out of the queue, and gives back what it got meanwhile.
func (p *share) leave(w *waiter) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for i, other := range p.queue {
		if other == w {
			p.queue = append(p.queue[:i], p.queue[i+1:]...)
			p.serve() // a small one may have waited behind it
			return
		}
	}
	p.free++
	p.memory += w.need
	p.serve()
}

// Tensor decodes an image and writes it into dst as spec says. dst has spec.Size()
// bytes. The placement leads from the model's pixels back to those of the upright
// image. Who leaves while it runs ends it early; the error is then the cause. Other
// errors are ErrBusy and, for people, what is wrong with the data.
func (p *Pool) Tensor(ctx context.Context, data []byte, spec *Spec, dst []byte) (Placement, error) {
	info, err := p.Inspect(data)
	if err != nil {
		return Placement{}, err
	}
	release, err := p.acquire(ctx, info.memory+spec.workspace(info))
	if err != nil {
		return Placement{}, err
	}
	defer release()
	img, err := decode(ctx, data, info)
	if err != nil {
		return Placement{}, err
	}
	return spec.render(img, info, dst), nil
}
