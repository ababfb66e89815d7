package upstream

import (
	"net"
	"sync"
	"syscall"
	"time"
)

// conn is a connection that serves one exchange at a time.
type conn struct {
	net.Conn
	raw    syscall.RawConn
	born   time.Time
	idle   time.Time // when it was given back; guarded by its pool
	reused bool
}

func newConn(nc net.Conn) *conn {
	c := &conn{Conn: nc, born: time.Now()}
	if s, ok := nc.(syscall.Conn); ok {
		c.raw, _ = s.SyscallConn()
	}
	return c
}

// cut closes the connection; any goroutine may call it, and blocked reads and writes return.
func (c *conn) cut() { _ = c.Close() }

// quiet reports whether an idle connection is open and has brought nothing. Bytes that
// nobody asked for belong to no exchange, so a connection with some is not used again.
func (c *conn) quiet() bool {
	if c.raw == nil {
		return true
	}
	ok := false
	err := c.raw.Read(func(fd uintptr) bool {
		ok = nothingToRead(fd)
		return true
	})
	return err == nil && ok
}

// pool keeps idle connections; the last one given is the first one taken. It is safe for
// concurrent use.
type pool struct {
	size              int
	timeout, lifetime time.Duration

	mu      sync.Mutex
	conns   []*conn     // the longest idle one first
	sweep   *time.Timer // armed while there are any
	closing bool        // nothing is kept until the next call
}

// take returns an idle connection that looks alive, or nil.
func (p *pool) take() *conn {
	for {
		c := p.pop()
		if c == nil {
			return nil
		}
		if c.quiet() {
			c.reused = true
			return c
		}
		c.cut()
	}
}

func (p *pool) pop() *conn {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closing = false
	for now := time.Now(); len(p.conns) > 0; {
		n := len(p.conns) - 1
		c := p.conns[n]
		p.conns[n] = nil
		p.conns = p.conns[:n]
		if !p.expired(c, now) {
			return c
		}
		c.cut()
	}
	return nil
}

// give keeps c for the next exchange and reports whether there was room.
func (p *pool) give(c *conn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	c.idle = time.Now()
	if p.closing || len(p.conns) >= p.size || p.expired(c, c.idle) {
		return false
	}
	p.conns = append(p.conns, c)
	if p.sweep == nil && p.timeout > 0 {
		p.sweep = time.AfterFunc(p.timeout, p.sweepNow)
	}
	return true
}

func (p *pool) expired(c *conn, now time.Time) bool {
	return p.timeout > 0 && now.Sub(c.idle) >= p.timeout || p.lifetime > 0 && now.Sub(c.born) >= p.lifetime
}

// sweepNow closes what has been idle for too long, and comes again while any is left.
func (p *pool) sweepNow() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.expire()
	if len(p.conns) == 0 {
		p.sweep = nil
		return
	}
	p.sweep.Reset(max(p.timeout-time.Since(p.conns[0].idle), time.Millisecond))
}

// expire closes the idle connections that are over their time.
func (p *pool) expire() {
	now := time.Now()
	kept := p.conns[:0]
	for _, c := range p.conns {
		if p.expired(c, now) {
			c.cut()
		} else {
			kept = append(kept, c)
		}
	}
	clear(p.conns[len(kept):])
	p.conns = kept
}

// closeIdle also keeps those from being kept that are in use, unless the pool is asked
// for one again.
func (p *pool) closeIdle() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closing = true
	for _, c := range p.conns {
		c.cut()
	}
	clear(p.conns)
	p.conns = p.conns[:0]
}
