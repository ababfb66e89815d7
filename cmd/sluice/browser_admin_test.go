package main

import (
	"fmt"
	"strings"
	"testing"

	"github.com/chromedp/chromedp"
)

// TestBrowserSignsIn signs in over plain HTTP on loopback, with a real browser: it takes the
// Secure cookie from there, hides it from scripts, and sends it along.
func TestBrowserSignsIn(t *testing.T) {
	g := boot(t, "[demo]\ntoken_delay = \"1ms\"\n"+adminTables)
	for _, host := range []string{"127.0.0.1", "localhost"} {
		t.Run(host, func(t *testing.T) {
			ctx, end := chromedp.NewContext(startBrowser(t), chromedp.WithNewBrowserContext())
			t.Cleanup(end)
			p := &tab{ctx: ctx}
			if err := chromedp.Do(ctx, chromedp.Navigate(strings.Replace(g.AdminURL, "127.0.0.1", host, 1)+"/livez")); err != nil {
				t.Fatal(err)
			}
			status := func(method, path, body string) float64 {
				t.Helper()
				return evaluate[float64](t, p, fmt.Sprintf(
					`fetch("/admin/api"+%q, {method: %q, headers: {"Content-Type": "application/json"}, body: %q || undefined}).then(r => r.status)`, path, method, body))
			}
			for i, step := range []struct {
				method, path, body string
				want               float64
			}{
				{"GET", "/session", "", 401},
				{"POST", "/session", `{"password":"wrong"}`, 401},
				{"GET", "/session", "", 401},
				{"POST", "/session", `{"password":"` + adminPassword + `"}`, 200},
				{"GET", "/session", "", 200},
				{"GET", "/system", "", 200},
				{"DELETE", "/session", "", 204},
				{"GET", "/session", "", 401},
			} {
				if got := status(step.method, step.path, step.body); got != step.want {
					t.Errorf("step %d, %s %s: %v, want %v", i, step.method, step.path, got, step.want)
				}
				if cookie := evaluate[string](t, p, "document.cookie"); cookie != "" {
					t.Errorf("step %d: scripts see %q", i, cookie)
				}
			}
		})
	}
}

// TestBrowserOfAnotherOrigin has a page on another port of the same host, which is the same
// site and so sends the cookie along, call the admin API.
func TestBrowserOfAnotherOrigin(t *testing.T) {
	g := boot(t, "[demo]\ntoken_delay = \"1ms\"\n"+adminTables)
	other := boot(t, "[demo]\ntoken_delay = \"1ms\"\n"+adminTables)
	ctx, end := chromedp.NewContext(startBrowser(t), chromedp.WithNewBrowserContext())
	t.Cleanup(end)
	p := &tab{ctx: ctx}
	if err := chromedp.Do(ctx, chromedp.Navigate(g.AdminURL+"/livez")); err != nil {
		t.Fatal(err)
	}
	if status := evaluate[float64](t, p, fmt.Sprintf(`fetch("/admin/api/session", {method: "POST", headers: {"Content-Type": "application/json"}, body: %q}).then(r => r.status)`,
		`{"password":"`+adminPassword+`"}`)); status != 200 {
		t.Fatal(status)
	}
	if err := chromedp.Do(ctx, chromedp.Navigate(other.AdminURL+"/livez")); err != nil {
		t.Fatal(err)
	}
	for _, call := range []string{
		`fetch(%q, {credentials: "include"})`, `fetch(%q, {method: "DELETE", credentials: "include"})`,
		`fetch(%q, {method: "POST", body: "{}", credentials: "include", headers: {"Content-Type": "application/json"}})`,
	} {
		got := evaluate[string](t, p, fmt.Sprintf(call, g.AdminURL+"/admin/api/session")+`.then(r => "read " + r.status, e => "refused")`)
		if got != "refused" {
			t.Errorf("%s: %s", call, got)
		}
	}
	// Without asking first, as a form does: it is sent, and must do nothing.
	evaluate[string](t, p, fmt.Sprintf(`fetch(%q, {method: "POST", mode: "no-cors", credentials: "include", body: "{}"}).then(() => "answered", () => "hidden")`, g.AdminURL+"/admin/api/session"))
	if err := chromedp.Do(ctx, chromedp.Navigate(g.AdminURL+"/livez")); err != nil {
		t.Fatal(err)
	}
	if status := evaluate[float64](t, p, `fetch("/admin/api/session").then(r => r.status)`); status != 200 {
		t.Errorf("the session is over: %v", status)
	}
}
