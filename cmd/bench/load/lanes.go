package load

import (
	"context"
	"errors"
	"strconv"
	"sync"
	"time"

	"sluice/cmd/bench/proc"
)

// shared is a socket and the lanes that use it.
type shared struct {
	open  sync.Once
	s     *socket
	err   error
	users int // guarded by run.mu
}

// lane is a caller over a socket that it shares.
type lane struct {
	run    *run
	number int // of the socket
	id     string
	on     *shared
	once   sync.Once
}

// connect opens what carries a worker's calls: a connection of its own, or its
// lane of a socket.
func (r *run) connect(ctx context.Context, worker int) (caller, error) {
	if r.Lanes == 0 {
		c, err := dial(ctx, r.Addr)
		if err != nil {
			return nil, err
		}
		return c, nil
	}
	number := worker / r.Lanes
	r.mu.Lock()
	on := r.sockets[number]
	if on == nil {
		on = &shared{}
		r.sockets[number] = on
	}
	on.users++
	r.mu.Unlock()
	on.open.Do(func() { on.s, on.err = dialSocket(ctx, r.Addr, r.Key) })
	l := &lane{run: r, number: number, id: strconv.Itoa(worker % r.Lanes), on: on}
	if on.err != nil {
		_ = l.Close()
		return nil, on.err
	}
	return l, nil
}

func (l *lane) do(k *call) (Verdict, string) { return l.on.s.do(l.id, k) }

func (l *lane) reusable() bool { return l.on.s.alive() }

// Close leaves the socket, which ends with its last lane.
func (l *lane) Close() (err error) {
	l.once.Do(func() {
		l.run.mu.Lock()
		l.on.users--
		last := l.on.users == 0
		if last && l.run.sockets[l.number] == l.on {
			delete(l.run.sockets, l.number)
		}
		l.run.mu.Unlock()
		if last && l.on.s != nil {
			err = l.on.s.Close()
		}
	})
	return err
}

// hold opens Workers sockets at Rate a second and reads the target's memory while
// none of them carries anything, and again while each carries a stream.
func (r *run) hold(ctx context.Context) error {
	if r.Lanes != 1 {
		return errors.New("a held socket carries one lane")
	}
	warm := r.seeded(0)
	warm.shape.Tokens, warm.shape.Every = 8, 0
	r.one(ctx, newCall(r.Key, warm.shape))
	var err error
	if r.res.RSSBefore, err = proc.RSS(r.pids); err != nil {
		return err
	}
	held, drop := context.WithCancel(ctx)
	begin := make(chan struct{})
	var wg sync.WaitGroup
	defer wg.Wait()
	defer drop()
	for i := range r.Workers {
		wg.Go(func() { r.holdOne(held, i, begin) })
	}
	ramp := r.turn(r.Workers)
	if err := sleep(ctx, ramp+r.Warm); err != nil {
		return err
	}
	if r.res.RSSSockets, err = proc.RSS(r.pids); err != nil {
		return err
	}
	close(begin)
	if err := sleep(ctx, ramp); err != nil {
		return err
	}
	if err := r.measure(ctx); err != nil {
		return err
	}
	r.res.RSSOpen, err = proc.RSS(r.pids)
	return err
}

// turn is when the i-th of the things opened at Rate a second is opened.
func (r *run) turn(i int) time.Duration {
	return time.Duration(i) * time.Second / time.Duration(r.Rate)
}

// holdOne opens one socket, and starts its stream some time after begin is closed.
func (r *run) holdOne(ctx context.Context, i int, begin <-chan struct{}) {
	if sleep(ctx, r.turn(i)) != nil {
		return
	}
	c, err := r.connect(ctx, i)
	if err != nil {
		r.judge(Failed, err.Error())
		return
	}
	defer c.Close()
	r.mu.Lock()
	r.res.Sockets++
	r.mu.Unlock()
	select {
	case <-begin:
	case <-ctx.Done():
	}
	if sleep(ctx, r.turn(i)) == nil {
		r.carry(ctx, c, r.seeded(i), nil)
	}
}
