package main

import (
	"fmt"
	"strings"
	"testing"
	"unicode/utf8"
)

// sequences are the texts of Autobahn's groups 6.5 to 6.22, which are those of Markus
// Kuhn's UTF-8 decoder stress test. Whether one is valid is left to the oracle
// utf8.ValidString; the counts below pin what it says.
func sequences() [][]string {
	const greek = "\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce\xb5"
	var prefixes, all []string
	for i := range len(greek) {
		prefixes = append(prefixes, greek[:i+1])
	}
	for c := 0x80; c < 0xbf; c++ {
		all = append(all, string([]byte{byte(c)}))
	}
	lonely := func(first, last int) string {
		var b strings.Builder
		for c := first; c < last; c++ {
			b.Write([]byte{byte(c), ' '})
		}
		return b.String()
	}
	lastMissing := []string{"\xc0", "\xe0\x80", "\xf0\x80\x80", "\xf8\x80\x80\x80", "\xfc\x80\x80\x80\x80",
		"\xdf", "\xef\xbf", "\xf7\xbf\xbf", "\xfb\xbf\xbf\xbf", "\xfd\xbf\xbf\xbf\xbf"}
	pairs := make([]string, 0, 8)
	for _, high := range []string{"\xed\xa0\x80", "\xed\xad\xbf", "\xed\xae\x80", "\xed\xaf\xbf"} {
		pairs = append(pairs, high+"\xed\xb0\x80", high+"\xed\xbf\xbf")
	}
	return [][]string{
		{"hello$world", "hello\u00a2world", "hello\u20acworld", "hello\U00024b62world", greek},
		prefixes,
		{"\x00", "\u0080", "\u0800", "\U00010000"},
		{"\xf8\x88\x80\x80\x80", "\xfc\x84\x80\x80\x80\x80"},
		{"\x7f", "\u07ff", "\uffff", "\U0010ffff"},
		{"\xf7\xbf\xbf\xbf", "\xfb\xbf\xbf\xbf\xbf", "\xfd\xbf\xbf\xbf\xbf\xbf"},
		{"\ud7ff", "\ue000", "\ufffd", "\U0010ffff", "\xf4\x90\x80\x80"},
		{"\x80", "\xbf", "\x80\xbf", "\x80\xbf\x80", "\x80\xbf\x80\xbf", "\x80\xbf\x80\xbf\x80", "\x80\xbf\x80\xbf\x80\xbf", strings.Join(all, "")},
		{lonely(0xc0, 0xdf), lonely(0xe0, 0xef), lonely(0xf0, 0xf7), lonely(0xf8, 0xfb), lonely(0xfc, 0xfd)},
		lastMissing,
		{strings.Join(lastMissing, "")},
		{"\xfe", "\xff", "\xfe\xfe\xff\xff"},
		{"\xc0\xaf", "\xe0\x80\xaf", "\xf0\x80\x80\xaf", "\xf8\x80\x80\x80\xaf", "\xfc\x80\x80\x80\x80\xaf"},
		{"\xc1\xbf", "\xe0\x9f\xbf", "\xf0\x8f\xbf\xbf", "\xf8\x87\xbf\xbf\xbf", "\xfc\x83\xbf\xbf\xbf\xbf"},
		{"\xc0\x80", "\xe0\x80\x80", "\xf0\x80\x80\x80", "\xf8\x80\x80\x80\x80", "\xfc\x80\x80\x80\x80\x80"},
		{"\xed\xa0\x80", "\xed\xad\xbf", "\xed\xae\x80", "\xed\xaf\xbf", "\xed\xb0\x80", "\xed\xbe\x80", "\xed\xbf\xbf"},
		pairs,
		nonCharacters(),
		{"\ufff9", "\ufffa", "\ufffb", "\ufffc", "\ufffd", "\ufffe", "\uffff"},
	}
}

// nonCharacters are code points of no character, which UTF-8 may carry all the same.
func nonCharacters() (out []string) {
	out = []string{"\ufffe", "\uffff"}
	for plane := rune(1); plane <= 16; plane++ {
		out = append(out, string(plane<<16|0xfffe), string(plane<<16|0xffff))
	}
	return out
}

func TestWebSocketConformanceUTF8(t *testing.T) {
	t.Parallel()
	const (
		umlauts = "Hello-\u00b5@\u00df\u00f6\u00e4\u00fc\u00e0\u00e1-UTF-8!!"
		greek   = "\u03ba\u1f79\u03c3\u03bc\u03b5"
		bad     = greek + "\xed\xa0\x80" + "edited"
	)
	echo := func(content string) []string { return []string{"answer " + digest(content)} }
	whole := create("c", umlauts)
	middle := strings.Index(whole, "\u00fc")
	cases := []wireCase{
		{id: "6.1.1", send: []wireFrame{textFrame("")}, want: []string{refusal}},
		{id: "6.1.2", send: []wireFrame{{op: wireText, more: true}, {more: true}, {}}, want: []string{refusal}},
		{id: "6.1.3", send: []wireFrame{{op: wireText, more: true}, {payload: whole, more: true}, {}}, want: echo(umlauts)},
		{id: "6.2.1", send: []wireFrame{textFrame(whole)}, want: echo(umlauts)},
		{id: "6.2.2", send: fragments(wireText, whole, middle), want: echo(umlauts)},
		{id: "6.2.3", send: fragments(wireText, whole, 1), want: echo(umlauts)},
		{id: "6.2.4", send: fragments(wireText, create("c", greek), 1), want: echo(greek)},
		{id: "6.3.1", send: []wireFrame{textFrame(bad)}, fail: 1007},
		{id: "6.3.2", send: fragments(wireText, bad, 1), fail: 1007},
	}
	valid, invalid := 0, 0
	for group, texts := range sequences() {
		for i, s := range texts {
			c := wireCase{id: fmt.Sprintf("6.%d.%d", group+5, i+1), send: []wireFrame{textFrame(s)}, want: []string{refusal}}
			inside := wireCase{id: c.id + " inside JSON", send: []wireFrame{textFrame(create("c", s))}, want: echo(s)}
			if utf8.ValidString(s) {
				valid++
			} else {
				invalid++
				c.want, c.fail, inside.want, inside.fail = nil, 1007, nil, 1007
			}
			if s == "\x00" {
				inside.want = []string{refusal} // JSON wants it escaped
			}
			cases = append(cases, c, inside)
		}
	}
	if valid != 63 || invalid != 69 {
		t.Errorf("%d sequences are valid and %d are not, want 63 and 69", valid, invalid)
	}
	runWireCases(t, digesting(t, ""), cases)
}

// TestWebSocketConformanceUTF8InPieces is 6.4: a text turns invalid in its middle, while
// more of it is still to come. The suite would like it refused there; to refuse it at
// its end is what RFC 6455 asks for, and what happens.
func TestWebSocketConformanceUTF8InPieces(t *testing.T) {
	t.Parallel()
	g := digesting(t, "")
	const text = "\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce\xb5\xf4\x90\x80\x80edited"
	for i, cuts := range [][2]int{{11, 15}, {12, 13}} {
		parts := []string{text[:cuts[0]], text[cuts[0]:cuts[1]], text[cuts[1]:]}
		frames := []wireFrame{{op: wireText, payload: parts[0], more: true}, {payload: parts[1], more: true}, {payload: parts[2]}}
		for j, pieces := range [][]string{piecesOf(frames...), cutAt(textFrame(text).append(nil), cuts)} {
			t.Run(fmt.Sprintf("6.4.%d", 2*j+i+1), func(t *testing.T) {
				t.Parallel()
				w := g.openWire(t)
				_, _ = w.Write([]byte(pieces[0]))
				if j == 0 { // between frames a ping shows that the first was taken in
					w.send(0, pingFrame("A"))
					w.want(t, "pong A")
				}
				for _, p := range pieces[1:] {
					_, _ = w.Write([]byte(p))
				}
				w.failed(t, 1007)
			})
		}
	}
}

func piecesOf(frames ...wireFrame) (pieces []string) {
	for _, f := range frames {
		pieces = append(pieces, string(f.append(nil)))
	}
	return pieces
}

// cutAt cuts one short frame inside its payload.
func cutAt(frame []byte, at [2]int) []string {
	const header = 2 + 4
	return []string{string(frame[:header+at[0]]), string(frame[header+at[0] : header+at[1]]), string(frame[header+at[1]:])}
}

// TestWebSocketCutEverywhere cuts a text with code points of every length at every
// byte, once into two frames and once into two writes.
func TestWebSocketCutEverywhere(t *testing.T) {
	t.Parallel()
	g := digesting(t, "")
	w := g.openWire(t)
	const content = `a\u00e9\"é€😀z`
	const meant = "aé\"é€😀z"
	message := create("c", content)
	for at := 1; at < len(message); at++ {
		w.send(0, wireFrame{op: wireText, payload: message[:at], more: true}, pingFrame(fmt.Sprint(at)), wireFrame{payload: message[at:]})
		w.want(t, fmt.Sprintf("pong %d", at), "answer "+digest(meant))
	}
	frame := textFrame(message).append(nil)
	for at := 1; at < len(frame); at++ {
		_, _ = w.Write(frame[:at])
		_, _ = w.Write(frame[at:])
		w.want(t, "answer "+digest(meant))
	}
	w.leave(t)
}
