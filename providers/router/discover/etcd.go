package discover

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"
)

// Etcd are the keys below a prefix in etcd, by its JSON gateway. The value of each is an
// address, or an object with "address" (or "Addr", as etcd's own naming library writes it).
type Etcd struct {
	URL    string // of a member, such as http://127.0.0.1:2379
	Prefix string
	Client *http.Client
}

// Watch implements Source.
func (e Etcd) Watch(ctx context.Context, tell func([]Member, error)) {
	for failed := 0; ctx.Err() == nil; {
		members, revision, err := e.list(ctx)
		if ctx.Err() != nil {
			return
		}
		tell(members, err)
		if err == nil {
			failed = 0
			err = e.await(ctx, revision+1)
		}
		if err != nil && ctx.Err() == nil {
			pause(ctx, again(failed))
			failed++
		}
	}
}

// span is the keys with the prefix, as etcd has it: up to the first that comes after them.
func (e Etcd) span() map[string]any {
	end := []byte(e.Prefix)
	for len(end) > 0 && end[len(end)-1] == 0xff {
		end = end[:len(end)-1]
	}
	if len(end) == 0 {
		end = []byte{0}
	} else {
		end[len(end)-1]++
	}
	return map[string]any{"key": []byte(e.Prefix), "range_end": end}
}

type etcdHeader struct {
	Revision int64 `json:"revision,string"`
}

func (e Etcd) list(ctx context.Context) (all []Member, revision int64, err error) {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	body, err := e.post(ctx, "/v3/kv/range", e.span())
	if err != nil {
		return nil, 0, err
	}
	defer body.Close()
	var found struct {
		Header etcdHeader `json:"header"`
		KVs    []struct {
			Value []byte `json:"value"`
		} `json:"kvs"`
	}
	if err := json.NewDecoder(io.LimitReader(body, maxAnswer)).Decode(&found); err != nil {
		return nil, 0, fmt.Errorf("reading the answer of etcd: %w", err)
	}
	for _, kv := range found.KVs {
		m, err := etcdMember(kv.Value)
		if err != nil {
			return nil, 0, err
		}
		all = append(all, m)
	}
	all, err = tidy(all)
	return all, found.Header.Revision, err
}

func etcdMember(value []byte) (Member, error) {
	value = bytes.TrimSpace(value)
	if len(value) == 0 || value[0] != '{' {
		return Member{Address: string(value)}, nil
	}
	var v struct {
		Address, Addr    string
		Weight, Priority int
		Drained          bool
	}
	if err := json.Unmarshal(value, &v); err != nil {
		return Member{}, fmt.Errorf("reading a value in etcd: %w", err)
	}
	if v.Address == "" {
		v.Address = v.Addr
	}
	return Member{v.Address, v.Weight, v.Priority, v.Drained}, nil
}

// await returns nil when something has changed since a revision.
func (e Etcd) await(ctx context.Context, since int64) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	create := e.span()
	create["start_revision"] = since
	body, err := e.post(ctx, "/v3/watch", map[string]any{"create_request": create})
	if err != nil {
		return err
	}
	defer body.Close()
	var got struct {
		Result struct {
			Canceled bool              `json:"canceled"`
			Events   []json.RawMessage `json:"events"`
		} `json:"result"`
		Error json.RawMessage `json:"error"`
	}
	for d := json.NewDecoder(body); ; {
		got.Result.Events = nil
		if err := d.Decode(&got); err != nil {
			return fmt.Errorf("watching etcd: %w", err)
		}
		switch {
		case len(got.Error) > 0 || got.Result.Canceled: // its history does not go back so far
			return errors.New("etcd has ended the watch")
		case len(got.Result.Events) > 0:
			return nil
		}
	}
}

func (e Etcd) post(ctx context.Context, path string, body any) (io.ReadCloser, error) {
	text, err := json.Marshal(body)
	if err != nil {
		return nil, err
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, strings.TrimSuffix(e.URL, "/")+path, bytes.NewReader(text))
	if err != nil {
		return nil, err
	}
	r.Header.Set("Content-Type", "application/json")
	a, err := e.Client.Do(r)
	if err != nil {
		return nil, err
	}
	if a.StatusCode != http.StatusOK {
		_ = a.Body.Close()
		return nil, fmt.Errorf("etcd answered with status %d", a.StatusCode)
	}
	return a.Body, nil
}
