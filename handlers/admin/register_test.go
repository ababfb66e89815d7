package admin

import (
	"errors"
	"net/http"
	"testing"
	"time"
)

// registrations remembers who came.
type registrations map[string]Registration

func (r registrations) Register(id string, s Registration) (fresh bool, field string, err error) {
	if s.Upstream != "gpus" {
		return false, "upstream", errors.New("there is no such upstream")
	}
	fresh = r[id] != s
	r[id] = s
	return fresh, "", nil
}

func (r registrations) Deregister(id string) bool {
	_, was := r[id]
	delete(r, id)
	return was
}

func TestRegister(t *testing.T) {
	known := registrations{}
	opt := Options{Registry: known}
	body := `{"upstream":"gpus","address":"10.0.0.1:8000","weight":3,"priority":1,"ttl_seconds":60}`
	lease := got[leaseJSON](t, ask(t, opt, anAdmin, "PUT", "/targets/gpu-1", body), http.StatusCreated)
	if lease.Target != "gpus@10.0.0.1:8000" || lease.Weight != 3 || lease.Priority != 1 || time.Until(lease.Expires) > time.Minute {
		t.Errorf("%+v", lease)
	}
	got[leaseJSON](t, ask(t, opt, anAdmin, "PUT", "/targets/gpu-1", body), http.StatusOK)
	if want := (Registration{"gpus", "10.0.0.1:8000", 3, 1, time.Minute}); known["gpu-1"] != want {
		t.Errorf("%+v", known)
	}
	for path, body := range map[string]string{
		"/targets/gpu-1":        `{"upstream":"others","address":"a:1"}`,
		"/targets/gpu%20one":    `{"upstream":"gpus","address":"a:1"}`,
		"/targets/short":        `{"upstream":"gpus","address":"a:1","ttl_seconds":4}`,
		"/targets/long":         `{"upstream":"gpus","address":"a:1","ttl_seconds":3601}`,
		"/targets/overflow":     `{"upstream":"gpus","address":"a:1","ttl_seconds":9223372036854775807}`,
		"/targets/weightless":   `{"upstream":"gpus","address":"a:1","weight":0}`,
		"/targets/preferred":    `{"upstream":"gpus","address":"a:1","priority":-1}`,
		"/targets/unknownfield": `{"upstream":"gpus","address":"a:1","url":"http://a"}`,
	} {
		if w := ask(t, opt, anAdmin, "PUT", path, body); w.Code != http.StatusBadRequest {
			t.Errorf("%s: %d %s", path, w.Code, w.Body)
		}
	}
	for who, want := range map[string]int{"viewer": http.StatusForbidden, "nobody": http.StatusUnauthorized} {
		actor := aViewer
		if who == "nobody" {
			actor = nobody
		}
		if w := ask(t, opt, actor, "PUT", "/targets/gpu-1", body); w.Code != want {
			t.Errorf("%s: %d", who, w.Code)
		}
	}
	if w := ask(t, opt, anAdmin, "DELETE", "/targets/gpu-1", ""); w.Code != http.StatusNoContent || len(known) != 0 {
		t.Errorf("%d, %v", w.Code, known)
	}
	if w := ask(t, opt, anAdmin, "DELETE", "/targets/gpu-1", ""); w.Code != http.StatusNotFound {
		t.Errorf("%d for nobody", w.Code)
	}
	if w := ask(t, Options{}, anAdmin, "PUT", "/targets/gpu-1", body); w.Code != http.StatusNotFound {
		t.Errorf("%d without a registry", w.Code)
	}
}
