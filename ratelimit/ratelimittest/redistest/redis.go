package redistest

import (
	"testing"

	"github.com/redis/go-redis/v9"
)

// Connect returns a client that ends with the test. tune changes its options, if it is not nil.
func Connect(t testing.TB, o redis.UniversalOptions, tune func(*redis.UniversalOptions)) redis.UniversalClient {
	t.Helper()
	if tune != nil {
		tune(&o)
	}
	client := redis.NewUniversalClient(&o)
	t.Cleanup(func() { _ = client.Close() })
	return client
}

// Client is a client of this server alone.
func (s *Server) Client(tune func(*redis.UniversalOptions)) redis.UniversalClient {
	return Connect(s.t, redis.UniversalOptions{Addrs: []string{s.Addr}}, tune)
}

// Client is a client of the cluster.
func (s Servers) Client(tune func(*redis.UniversalOptions)) redis.UniversalClient {
	return Connect(s[0].t, redis.UniversalOptions{Addrs: s.Addrs(), IsClusterMode: true}, tune)
}

// Client is a client that asks the sentinel for the primary.
func (w *Watched) Client(tune func(*redis.UniversalOptions)) redis.UniversalClient {
	return Connect(w.Sentinel.t, redis.UniversalOptions{Addrs: []string{w.Sentinel.Addr}, MasterName: w.Name}, tune)
}

// ClientFor is a client of whatever listens at the address.
func ClientFor(t testing.TB, addr string, tune func(*redis.UniversalOptions)) redis.UniversalClient {
	t.Helper()
	return Connect(t, redis.UniversalOptions{Addrs: []string{addr}}, tune)
}
