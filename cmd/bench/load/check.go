package load

import (
	"bytes"
	"strconv"

	"sluice/cmd/bench/mock"
)

// Verdict is what became of one answer.
type Verdict int

const (
	OK        Verdict = iota
	Truncated         // ended early: no [DONE], an error event, a cut body or connection
	Wrong             // looks complete but its content, finish or usage is not what was sent
	Failed            // no stream at all: no connection, or a status other than 200
)

// checker reads one streamed answer line by line and compares it with what the
// mock sends. The zero value is not usable: see newChecker.
type checker struct {
	shape  mock.Shape
	words  []string
	got    int // tokens so far
	finish bool
	usage  bool
	done   bool
	err    bool   // an in-stream error object
	bad    string // the first difference
}

func newChecker(s mock.Shape) checker { return checker{shape: s, words: mock.Words(s.Seed)} }

// line takes one line without its end and reports whether it was a token.
func (c *checker) line(b []byte) bool {
	data, ok := bytes.CutPrefix(b, []byte("data:"))
	if !ok {
		return false // blank line, comment, or a field that no plain stream uses
	}
	data = bytes.TrimPrefix(data, []byte(" "))
	if string(data) == "[DONE]" {
		c.done = true
		return false
	}
	return c.event(data)
}

// event takes the JSON of one event and reports whether it was a token.
func (c *checker) event(data []byte) bool {
	if c.done {
		c.note("event after [DONE]")
		return false
	}
	if word := value(data, `"content":"`); len(word) > 0 {
		return c.token(word)
	}
	c.other(data)
	return false
}

func (c *checker) token(word []byte) bool {
	switch {
	case c.got >= c.shape.Tokens || c.finish:
		c.note("more tokens than were sent")
	case string(word) != c.words[c.got%mock.Period]:
		c.note("token " + strconv.Itoa(c.got) + " is " + strconv.Quote(string(word)))
	}
	c.got++
	return true
}

// other takes an event without content: role, finish, usage, error, heartbeat.
func (c *checker) other(data []byte) {
	if bytes.Contains(data, []byte(`"error":{`)) {
		c.err = true
		return
	}
	if reason := value(data, `"finish_reason":"`); len(reason) > 0 {
		if string(reason) != "stop" || c.finish {
			c.note("finish_reason " + string(reason))
		}
		c.finish = true
	}
	if _, rest, ok := bytes.Cut(data, []byte(`"completion_tokens":`)); ok {
		if !c.shape.Usage || c.usage || !bytes.HasPrefix(rest, append(strconv.AppendInt(nil, int64(c.shape.Tokens), 10), ',')) {
			c.note("usage unasked, repeated or wrong")
		}
		c.usage = true
	}
}

func (c *checker) note(what string) {
	if c.bad == "" {
		c.bad = what
	}
}

// end gives the verdict. bodyErr is how reading the body ended, nil for its
// proper end.
func (c *checker) end(bodyErr error) (Verdict, string) {
	switch {
	case c.bad != "":
		return Wrong, c.bad
	case c.err:
		return Truncated, c.at("error event")
	case bodyErr != nil:
		return Truncated, c.at(bodyErr.Error())
	case !c.done:
		return Truncated, c.at("body ended without [DONE]")
	case c.got != c.shape.Tokens:
		return Wrong, c.at("[DONE] although tokens are missing")
	case !c.finish:
		return Wrong, "[DONE] without finish_reason"
	case c.usage != c.shape.Usage:
		return Wrong, "usage asked for is missing"
	}
	return OK, ""
}

func (c *checker) at(what string) string {
	return what + " after " + strconv.Itoa(c.got) + " of " + strconv.Itoa(c.shape.Tokens) + " tokens"
}

// checkWhole compares a non-streamed answer.
func checkWhole(body []byte, text string) (Verdict, string) {
	got := value(body, `"content":"`)
	switch {
	case string(got) == text && bytes.HasSuffix(bytes.TrimSpace(body), []byte("}")):
		return OK, ""
	case len(got) < len(text) && bytes.HasPrefix([]byte(text), got):
		return Truncated, "content of " + strconv.Itoa(len(got)) + " of " + strconv.Itoa(len(text)) + " bytes"
	}
	return Wrong, "content differs"
}

// value returns what stands between key, which ends in a quote, and the next
// quote. The mock's contents hold no escapes.
func value(data []byte, key string) []byte {
	i := bytes.Index(data, []byte(key))
	if i < 0 {
		return nil
	}
	data = data[i+len(key):]
	if end := bytes.IndexByte(data, '"'); end >= 0 {
		return data[:end]
	}
	return nil
}
