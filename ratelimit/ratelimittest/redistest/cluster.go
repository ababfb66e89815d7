package redistest

import (
	"fmt"
	"net"
	"strconv"
	"strings"
	"testing"
)

// Servers are the nodes of a cluster.
type Servers []*Server

// slots is how many hash slots a cluster has.
const slots = 16384

// Cluster starts a cluster of three primaries without replicas.
func Cluster(t testing.TB, args ...string) Servers {
	t.Helper()
	nodes := make(Servers, 3)
	buses := make([]string, len(nodes))
	for i := range nodes {
		buses[i] = freePort(t)
		nodes[i] = start(t, freePort(t), append([]string{
			"--cluster-enabled", "yes", "--cluster-port", buses[i], "--cluster-node-timeout", "2000",
			"--cluster-require-full-coverage", "no",
		}, args...)...)
	}
	for i, n := range nodes {
		n.Must("CLUSTER", "ADDSLOTSRANGE", strconv.Itoa(i*slots/len(nodes)), strconv.Itoa((i+1)*slots/len(nodes)-1))
		n.Must("CLUSTER", "SET-CONFIG-EPOCH", strconv.Itoa(i+1))
		if i > 0 {
			_, port, _ := net.SplitHostPort(nodes[0].Addr)
			n.Must("CLUSTER", "MEET", "127.0.0.1", port, buses[0])
		}
	}
	for _, n := range nodes {
		n.Await("see the whole cluster", func() bool {
			info, err := n.Do("CLUSTER", "INFO")
			return err == nil && strings.Contains(info, "cluster_state:ok") &&
				strings.Contains(info, "cluster_slots_ok:16384") && strings.Contains(info, "cluster_known_nodes:3")
		})
	}
	return nodes
}

// Addrs are where the nodes listen.
func (s Servers) Addrs() []string {
	out := make([]string, len(s))
	for i, n := range s {
		out[i] = n.Addr
	}
	return out
}

// Owner is the node that serves the key's slot.
func (s Servers) Owner(key string) *Server {
	slot := s[0].Must("CLUSTER", "KEYSLOT", key)
	n, _ := strconv.Atoi(slot)
	for i, node := range s {
		if n < (i+1)*slots/len(s) {
			return node
		}
	}
	return nil
}

// Move gives the key's slot, with all its keys, to another node.
func (s Servers) Move(key string, to *Server) {
	from := s.Owner(key)
	from.t.Helper()
	slot := from.Must("CLUSTER", "KEYSLOT", key)
	fromID, toID := from.Must("CLUSTER", "MYID"), to.Must("CLUSTER", "MYID")
	to.Must("CLUSTER", "SETSLOT", slot, "IMPORTING", fromID)
	from.Must("CLUSTER", "SETSLOT", slot, "MIGRATING", toID)
	_, port, _ := net.SplitHostPort(to.Addr)
	for {
		keys := strings.Fields(from.Must("CLUSTER", "GETKEYSINSLOT", slot, "100"))
		if len(keys) == 0 {
			break
		}
		for _, k := range keys {
			from.Must("MIGRATE", "127.0.0.1", port, k, "0", "5000")
		}
	}
	for _, n := range append(Servers{to, from}, s...) {
		if _, err := n.Do("CLUSTER", "SETSLOT", slot, "NODE", toID); err != nil {
			from.t.Fatal(fmt.Errorf("slot %s on %s: %w", slot, n.Addr, err))
		}
	}
}
