package discover

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
)

// consulFake answers as an agent does: a question with the present index waits for a change.
type consulFake struct {
	mu      sync.Mutex
	index   uint64
	body    string
	changed chan struct{}
	status  int
}

func (c *consulFake) set(index uint64, status int, body string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.index, c.status, c.body = index, status, body
	close(c.changed)
	c.changed = make(chan struct{})
}

func (c *consulFake) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	if r.URL.Path != "/v1/health/service/vllm" || q.Get("passing") != "true" || q.Get("tag") != "gpu" || r.Header.Get("X-Consul-Token") != "secret" || q.Get("wait") != "5m0s" {
		http.Error(w, "not as it should be: "+r.URL.String(), http.StatusBadRequest)
		return
	}
	c.mu.Lock()
	for q.Get("index") == fmt.Sprint(c.index) && c.status == http.StatusOK {
		changed := c.changed
		c.mu.Unlock()
		select {
		case <-changed:
		case <-r.Context().Done():
			return
		}
		c.mu.Lock()
	}
	defer c.mu.Unlock()
	w.Header().Set("X-Consul-Index", fmt.Sprint(c.index))
	w.WriteHeader(c.status)
	fmt.Fprint(w, c.body)
}

func TestConsul(t *testing.T) {
	entry := func(node, service string, port int) string {
		return fmt.Sprintf(`{"Node":{"Node":"n","Address":%q},"Service":{"ID":"x","Service":"vllm","Address":%q,"Port":%d,"Weights":{"Passing":4,"Warning":1}},"Checks":[{"Status":"passing"}]}`, node, service, port)
	}
	c := &consulFake{changed: make(chan struct{}), index: 10, status: 200, body: "[" + entry("10.0.0.1", "", 8000) + "]"}
	s := httptest.NewServer(c)
	lists, errs := follow(t, Consul{URL: s.URL + "/", Service: "vllm", Tag: "gpu", Token: "secret", Client: s.Client()})
	t.Cleanup(s.CloseClientConnections)
	if m := await(t, lists, "10.0.0.1:8000"); m[0].Weight != 4 {
		t.Errorf("%+v", m)
	}
	c.set(11, 200, "["+entry("10.0.0.1", "", 8000)+","+entry("10.0.0.1", "10.0.0.9", 8001)+"]")
	await(t, lists, "10.0.0.1:8000", "10.0.0.9:8001")
	c.set(12, 500, "no leader")
	<-errs
	c.set(3, 200, "[]") // restored from a snapshot: the index goes back
	await(t, lists)
	c.set(4, 200, "["+entry("10.0.0.2", "", 8000)+"]")
	await(t, lists, "10.0.0.2:8000")
}

// etcdFake is the JSON gateway of etcd over a few keys.
type etcdFake struct {
	mu       sync.Mutex
	revision int
	kvs      map[string]string
	changed  chan struct{}
	broken   bool
}

func (e *etcdFake) put(key, value string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.revision++
	if e.kvs[key] = value; value == "" {
		delete(e.kvs, key)
	}
	close(e.changed)
	e.changed = make(chan struct{})
}

func (e *etcdFake) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	var q struct {
		Key, RangeEnd []byte
		Create        struct {
			Key   []byte `json:"key"`
			Start int    `json:"start_revision"`
		} `json:"create_request"`
	}
	_ = json.NewDecoder(r.Body).Decode(&q)
	e.mu.Lock()
	switch {
	case e.broken:
		http.Error(w, `{"error":"no leader","code":14}`, http.StatusServiceUnavailable)
	case r.URL.Path == "/v3/kv/range":
		var kvs []string
		for _, key := range slices.Sorted(func(yield func(string) bool) {
			for k := range e.kvs {
				if !yield(k) {
					return
				}
			}
		}) {
			if strings.HasPrefix(key, string(q.Key)) {
				kvs = append(kvs, fmt.Sprintf(`{"key":%q,"value":%q}`, base64.StdEncoding.EncodeToString([]byte(key)), base64.StdEncoding.EncodeToString([]byte(e.kvs[key]))))
			}
		}
		fmt.Fprintf(w, `{"header":{"cluster_id":"1","revision":"%d"},"kvs":[%s],"count":"%d"}`, e.revision, strings.Join(kvs, ","), len(kvs))
	case r.URL.Path == "/v3/watch":
		fmt.Fprint(w, `{"result":{"header":{"revision":"1"},"created":true}}`+"\n")
		w.(http.Flusher).Flush()
		for e.revision < q.Create.Start {
			changed := e.changed
			e.mu.Unlock()
			select {
			case <-changed:
			case <-r.Context().Done():
				return
			}
			e.mu.Lock()
		}
		fmt.Fprint(w, `{"result":{"header":{"revision":"2"},"events":[{"kv":{"key":"YQ=="}}]}}`+"\n")
	}
	e.mu.Unlock()
}

func TestEtcd(t *testing.T) {
	e := &etcdFake{kvs: map[string]string{"other/x": "nobody:1"}, changed: make(chan struct{})}
	e.put("vllm/a", "10.0.0.1:8000")
	s := httptest.NewServer(e)
	lists, errs := follow(t, Etcd{URL: s.URL, Prefix: "vllm/", Client: s.Client()})
	t.Cleanup(s.CloseClientConnections)
	await(t, lists, "10.0.0.1:8000")
	e.put("vllm/b", `{"Op":0,"Addr":"10.0.0.2:8000","Metadata":null}`)
	await(t, lists, "10.0.0.1:8000", "10.0.0.2:8000")
	e.put("vllm/c", `{"address":"10.0.0.3:8000","weight":5,"drained":true}`)
	if m := await(t, lists, "10.0.0.1:8000", "10.0.0.2:8000", "10.0.0.3:8000"); m[2] != (Member{"10.0.0.3:8000", 5, 0, true}) {
		t.Errorf("%+v", m)
	}
	e.put("vllm/a", "")
	await(t, lists, "10.0.0.2:8000", "10.0.0.3:8000")
	e.mu.Lock()
	e.broken = true
	e.mu.Unlock()
	e.put("vllm/d", "10.0.0.4:8000")
	<-errs
	e.mu.Lock()
	e.broken = false
	e.mu.Unlock()
	await(t, lists, "10.0.0.2:8000", "10.0.0.3:8000", "10.0.0.4:8000")
}
