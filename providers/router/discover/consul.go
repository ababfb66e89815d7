package discover

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// Consul is a service in Consul's catalog, by its health API with blocking queries.
type Consul struct {
	URL     string // of the agent, such as http://127.0.0.1:8500
	Service string
	Tag     string // "" is any
	Token   string
	Client  *http.Client
}

const (
	// consulWait is how long a question waits for a change; Consul adds up to a sixteenth.
	consulWait = 5 * time.Minute
	maxAnswer  = 16 << 20
)

// Watch implements Source. Only instances whose checks pass are listed.
func (c Consul) Watch(ctx context.Context, tell func([]Member, error)) {
	var index uint64
	failed := 0
	for ctx.Err() == nil {
		members, next, err := c.ask(ctx, index)
		if ctx.Err() != nil {
			return
		}
		if err == nil {
			members, err = tidy(members)
		}
		tell(members, err)
		if err != nil {
			index = 0
			pause(ctx, again(failed))
			failed++
			continue
		}
		failed = 0
		if next < index || next == 0 { // the servers have begun anew
			next = 0
			pause(ctx, again(0))
		}
		index = next
	}
}

type consulEntry struct {
	Node    struct{ Address string }
	Service struct {
		Address string
		Port    int
		Weights struct{ Passing int }
	}
}

func (c Consul) ask(ctx context.Context, index uint64) (all []Member, next uint64, err error) {
	ctx, cancel := context.WithTimeout(ctx, consulWait+consulWait/16+30*time.Second)
	defer cancel()
	q := url.Values{"passing": {"true"}, "index": {strconv.FormatUint(index, 10)}, "wait": {consulWait.String()}}
	if c.Tag != "" {
		q.Set("tag", c.Tag)
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, strings.TrimSuffix(c.URL, "/")+"/v1/health/service/"+url.PathEscape(c.Service)+"?"+q.Encode(), nil)
	if err != nil {
		return nil, 0, err
	}
	if c.Token != "" {
		r.Header.Set("X-Consul-Token", c.Token)
	}
	a, err := c.Client.Do(r)
	if err != nil {
		return nil, 0, err
	}
	defer a.Body.Close()
	if a.StatusCode != http.StatusOK {
		return nil, 0, fmt.Errorf("consul answered with status %d", a.StatusCode)
	}
	var entries []consulEntry
	if err := json.NewDecoder(io.LimitReader(a.Body, maxAnswer)).Decode(&entries); err != nil {
		return nil, 0, fmt.Errorf("reading the answer of consul: %w", err)
	}
	for i := range entries {
		e := &entries[i]
		host := e.Service.Address
		if host == "" {
			host = e.Node.Address
		}
		all = append(all, Member{Address: net.JoinHostPort(host, strconv.Itoa(e.Service.Port)), Weight: e.Service.Weights.Passing})
	}
	next, _ = strconv.ParseUint(a.Header.Get("X-Consul-Index"), 10, 64)
	return all, next, nil
}
