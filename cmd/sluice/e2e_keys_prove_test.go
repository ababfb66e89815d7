//go:build prove

package main

import (
	"net/http"
	"testing"
	"time"

	"sluice/providers/providertest/wall"
	"sluice/ratelimit/ratelimittest/redistest"
)

// TestRevokedWithinASecond measures how long a key lives on at another gateway once the one that
// revoked it has said so, and how long a new one is unknown there.
func TestRevokedWithinASecond(t *testing.T) {
	server := redistest.Single(t)
	base, _ := wall.Start(t)
	config := limited(base, overRedis(server.Addr, testPepper)) + adminTables
	a, b := bootProcess(t, config), bootProcess(t, config)
	until := func(key string, status int) time.Duration {
		t.Helper()
		began := time.Now()
		for b.as(key).do(t, http.MethodGet, "/models", "").status != status {
			if time.Since(began) > patience {
				t.Fatalf("no %d within %v", status, patience)
			}
		}
		return time.Since(began)
	}
	var known, dead time.Duration
	for range 50 {
		k := a.issue(t, `{"name":"app"}`)
		known = max(known, until(k.Secret, http.StatusOK))
		a.wantAdmin(t, http.StatusOK, "POST", "/admin/api/keys/"+k.ID+"/disable", "", withToken...)
		dead = max(dead, until(k.Secret, http.StatusForbidden))
	}
	t.Logf("at most %v until a new key is known, %v until a revoked one is refused", known, dead)
	if known > time.Second || dead > time.Second {
		t.Error("more than a second")
	}
}
