package main

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"strings"
	"testing"

	"sluice/providers/providertest/wall"
)

func TestOfflineCommands(t *testing.T) {
	for _, tc := range []struct {
		args        []string
		stdin       string
		status      int
		out, errOut string
	}{
		{[]string{"--help"}, "", 0, "", "reset=AT"},
		{[]string{"--bogus"}, "", 2, "", "bogus"},
		{[]string{"--script", "bogus=1"}, "", 2, "", `unknown key "bogus"`},
		{[]string{"--listen", "256.0.0.1:x"}, "", 1, "", "listening"},
		{[]string{"nothing"}, "", 2, "", "unknown command"},
		{[]string{"text", "s", "3"}, "", 0, wall.Text("s", 3), ""},
		{[]string{"text", "s", "-1"}, "", 2, "", "number"},
		{[]string{"verify", "s"}, wall.Text("s", 4), 0, "4 tokens\n", ""},
		{[]string{"verify", "s"}, wall.Text("s", 4) + "x", 1, "", "at byte 28"},
	} {
		var out, errOut bytes.Buffer
		status := run(t.Context(), tc.args, strings.NewReader(tc.stdin), &out, &errOut)
		if status != tc.status || out.String() != tc.out || !strings.Contains(errOut.String(), tc.errOut) {
			t.Errorf("%v: status %d\n%s\n%s", tc.args, status, out.String(), errOut.String())
		}
	}
}

func TestServe(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	r, w := io.Pipe()
	status := make(chan int, 1)
	go func() {
		status <- run(ctx, []string{"--listen", "127.0.0.1:0", "--script", "tokens=2", "--models", "a,b"}, nil, w, io.Discard)
	}()
	line := make([]byte, 100)
	n, err := r.Read(line)
	if err != nil {
		t.Fatal(err)
	}
	base := strings.TrimSpace(strings.TrimPrefix(string(line[:n]), "wall: serving"))
	res, err := http.Post(base+"/completions", "application/json", strings.NewReader(`{"model":"m","prompt":"x"}`))
	if err != nil {
		t.Fatal(err)
	}
	body, _ := io.ReadAll(res.Body)
	_ = res.Body.Close()
	if !strings.Contains(string(body), `"`+wall.Text("wall", 2)+`"`) {
		t.Errorf("%s", body)
	}
	cancel()
	if got := <-status; got != 0 {
		t.Errorf("status %d", got)
	}
}
