package main

import (
	"bytes"
	"strings"
	"testing"

	"sluice/handlers/auth"
)

func TestHashPasswordCommand(t *testing.T) {
	hash := func(in string, args ...string) (code int, out, errs string) {
		var stdout, stderr bytes.Buffer
		code = run(t.Context(), append([]string{"admin", "hash-password"}, args...), nil, strings.NewReader(in), &stdout, &stderr)
		return code, stdout.String(), stderr.String()
	}
	matches := func(phc, password string) bool {
		h, err := auth.ParsePasswordHash(strings.TrimSuffix(phc, "\n"))
		if err != nil {
			t.Fatalf("%q: %v", phc, err)
		}
		ok, err := auth.NewPasswords().Match(t.Context(), h, password)
		return ok && err == nil
	}
	for _, in := range []string{"correct horse battery", "correct horse battery\n", "correct horse battery\r\n", "correct horse battery\nmore\n"} {
		code, out, errs := hash(in)
		if code != exitOK || errs != "" || !matches(out, "correct horse battery") || strings.Count(out, "\n") != 1 {
			t.Errorf("%q: %d, %q, %q", in, code, out, errs)
		}
	}
	code, out, errs := hash("", "--generate")
	password, ok := strings.CutPrefix(strings.TrimSpace(errs), "password: ")
	if code != exitOK || !ok || len(password) < 20 || !matches(out, password) {
		t.Errorf("%d, %q, %q", code, out, errs)
	}
	for in, want := range map[string]int{"": exitFailure, "short\n": exitUsage, strings.Repeat("x", auth.MaxPassword+1): exitUsage} {
		if code, out, errs := hash(in); code != want || out != "" || errs == "" || strings.Contains(errs, "short\n") {
			t.Errorf("%.20q: %d, %q, %q", in, code, out, errs)
		}
	}
}
