package upstream

import (
	"strings"
	"testing"

	"sluice/providers"
)

// What another server says is told from what the expected one says of a request.
func TestStranger(t *testing.T) {
	for _, c := range []struct {
		status   int
		body     string
		stranger bool
	}{
		{404, `{"error":{"message":"The model ` + "`x`" + ` does not exist","code":"model_not_found"}}`, false},
		{404, `{"object":"error","message":"The model does not exist.","type":"NotFoundError","code":404}`, false},
		{404, `{"error":{"message":"No such File object: x"}}`, false},
		{404, `{"detail":"Model x not found"}`, false},
		{404, `{"detail":"Not Found"}`, true},
		{404, `{"error":{"message":"Not Found","type":"Not Found","code":404}}`, true},
		{404, `{"error":{"message":"File Not Found","type":"not_found_error","code":404}}`, true},
		{404, `{"error":{"code":"404","message":"Resource not found"}}`, true},
		{404, `{"error":{"message":"Invalid URL (POST /chat/completions)","type":"invalid_request_error"}}`, true},
		{404, `{"error":{"message":"whatever","code":"unknown_url"}}`, true},
		{404, `{"message":"no Route matched with those values"}`, true},
		{404, `404 page not found`, true},
		{404, `<html>`, true},
		{404, ``, true},
		{405, `{"error":{"message":"x"}}`, true},
		{403, `{"error":{"message":"no"}}`, false},
		{403, `{"message":"Missing Authentication Token"}`, true},
		{403, `<html>`, true},
		{400, `{"error":"bad"}`, false},
		{400, `Failed to deserialize the JSON body`, false},
		{400, `<html>The plain HTTP request was sent to HTTPS port</html>`, true},
		{422, `{"detail":[{"loc":["body"]}]}`, false},
		{413, `<html>`, false}, {401, `<html>`, false}, {408, ``, false}, {429, ``, false}, {500, `<html>`, false}, {503, ``, false},
		{302, ``, true},
	} {
		w := ReadWords([]byte(c.body))
		e := Stranger("up", "the API", "/chat?x=y", c.status, FormOf([]byte(c.body), w), w)
		if (e != nil) != c.stranger {
			t.Errorf("%d %s: %v, want a stranger: %t", c.status, c.body, e, c.stranger)
		}
		if e != nil && (e.Kind != providers.Protocol || !e.Retryable() || e.Status != c.status || strings.ContainsAny(e.Message, "<") ||
			!strings.HasPrefix(e.Message, "an answer of the API to /chat was expected, and the upstream sent status ")) {
			t.Errorf("%d %s: %+v", c.status, c.body, e)
		}
	}
}
