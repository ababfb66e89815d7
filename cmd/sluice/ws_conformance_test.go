package main

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"sluice/providers/providertest/wall"
)

// This is the part of Autobahn's test suite that is about RFC 6455, its groups 1 to
// 7, 9 and 10, under its numbers. It was made for servers that echo. Here a message
// that asks for an answer takes the place of one to be echoed, where its content
// matters, and the answer is a digest of it; where only the order matters, it is a
// message that is no frame of ours and is answered at once by an error.

// hello is no frame of ours, and binary messages are none either.
const hello, refusal, binaryRefusal = "Hello, world!", "error 400", "error 415"

// wireCase is what is sent, what must come back, and how the connection ends: by the
// client in good order, by the gateway with a close code, or (-1) by what was sent.
type wireCase struct {
	id   string
	chop int // see wire.send
	send []wireFrame
	want []string
	fail int
}

const bySend = -1

func runWireCases(t *testing.T, g *gatewayUnderTest, cases []wireCase) {
	t.Helper()
	for _, c := range cases {
		t.Run(c.id, func(t *testing.T) {
			t.Parallel()
			w := g.openWire(t)
			w.send(c.chop, c.send...)
			w.want(t, c.want...)
			switch c.fail {
			case 0:
				w.leave(t)
			case bySend:
				w.want(t, "end")
			default:
				w.failed(t, c.fail)
			}
		})
	}
}

func TestWebSocketConformance(t *testing.T) {
	t.Parallel()
	g := digesting(t, "")
	runWireCases(t, g, slices.Concat(framingCases(), pingCases(), reservedCases(), fragmentCases(), closeCases()))
}

func framingCases() (cases []wireCase) {
	cases = []wireCase{
		{id: "1.1.1", send: []wireFrame{textFrame("")}, want: []string{refusal}},
		{id: "1.2.1", send: []wireFrame{{op: wireBinary}}, want: []string{binaryRefusal}},
		// Beyond the suite: a client must mask (section 5.1), and a length has 63 bits at most (5.2).
		{id: "unmasked", send: []wireFrame{{op: wireText, payload: hello, unmasked: true}}, fail: 1002},
		{id: "unmasked ping", send: []wireFrame{{op: wirePing, unmasked: true}}, fail: 1002},
		{id: "length of 64 bits", send: []wireFrame{{op: wireText, huge: true}}, fail: 1009},
	}
	for i, n := range []int{125, 126, 127, 128, 65535, 65536, 65536} {
		chop := 0
		if i == 6 {
			chop = 997
		}
		message, answer := sized(n)
		cases = append(cases,
			wireCase{id: fmt.Sprintf("1.1.%d", i+2), chop: chop, send: []wireFrame{textFrame(message)}, want: []string{answer}},
			wireCase{id: fmt.Sprintf("1.2.%d", i+2), chop: chop, send: []wireFrame{{op: wireBinary, payload: message}}, want: []string{binaryRefusal}})
	}
	message, answer := sized(65536)
	return append(cases, wireCase{id: "10.1.1", send: fragments(wireText, message, 1300), want: []string{answer}})
}

func pingCases() []wireCase {
	const octets = "\x00\xff\xfe\xfd\xfc\xfb\x00\xff"
	full := strings.Repeat("\xfe", 125)
	var ten []wireFrame
	var tenPongs []string
	for i := range 10 {
		ten = append(ten, pingFrame(fmt.Sprintf("payload-%d", i)))
		tenPongs = append(tenPongs, fmt.Sprintf("pong payload-%d", i))
	}
	unsolicited := wireFrame{op: wirePong, payload: "unsolicited pong payload"}
	return []wireCase{
		{id: "2.1", send: []wireFrame{pingFrame("")}, want: []string{"pong"}},
		{id: "2.2", send: []wireFrame{pingFrame(hello)}, want: []string{"pong " + hello}},
		{id: "2.3", send: []wireFrame{pingFrame(octets)}, want: []string{"pong " + octets}},
		{id: "2.4", send: []wireFrame{pingFrame(full)}, want: []string{"pong " + full}},
		{id: "2.5", send: []wireFrame{pingFrame(full + "\xfe")}, fail: 1002},
		{id: "2.6", chop: 1, send: []wireFrame{pingFrame(full)}, want: []string{"pong " + full}},
		{id: "2.7", send: []wireFrame{{op: wirePong}}},
		{id: "2.8", send: []wireFrame{unsolicited}},
		{id: "2.9", send: []wireFrame{unsolicited, pingFrame("ping payload")}, want: []string{"pong ping payload"}},
		{id: "2.10", send: ten, want: tenPongs},
		{id: "2.11", chop: 1, send: ten, want: tenPongs},
	}
}

// reservedCases are groups 3 and 4: bits and opcodes that nobody has given a meaning.
// Where the frame stands between a message and a ping, the message is answered and
// the ping is not.
func reservedCases() (cases []wireCase) {
	between := func(bad wireFrame) []wireFrame { return []wireFrame{textFrame(hello), bad, pingFrame("")} }
	rsv := func(bits byte) wireFrame { return wireFrame{op: wireText, payload: hello, rsv: bits} }
	cases = []wireCase{
		{id: "3.1", send: []wireFrame{rsv(1)}, fail: 1002},
		{id: "3.2", send: between(rsv(2)), want: []string{refusal}, fail: 1002},
		{id: "3.3", chop: -1, send: between(rsv(3)), want: []string{refusal}, fail: 1002},
		{id: "3.4", chop: 1, send: between(rsv(4)), want: []string{refusal}, fail: 1002},
		{id: "3.5", send: []wireFrame{{op: wireBinary, payload: "\x00\xff\xfe\xfd\xfc\xfb\x00\xff", rsv: 5}}, fail: 1002},
		{id: "3.6", send: []wireFrame{{op: wirePing, payload: hello, rsv: 6}}, fail: 1002},
		{id: "3.7", send: []wireFrame{{op: wireClose, rsv: 7}}, fail: 1002},
	}
	for group, first := range []byte{3, 11} {
		for i := range byte(5) {
			bad := wireFrame{op: first + i}
			if i%2 == 1 || i == 4 {
				bad.payload = "reserved opcode payload"
			}
			c := wireCase{id: fmt.Sprintf("4.%d.%d", group+1, i+1), send: []wireFrame{bad}, fail: 1002}
			if i >= 2 {
				c.send, c.want = between(bad), []string{refusal}
			}
			if i == 4 {
				c.chop = 1
			}
			cases = append(cases, c)
		}
	}
	return cases
}

// fragmentCases is group 5. Each way of cutting a message is tried with the three
// ways of writing it: at once, frame by frame, byte by byte.
func fragmentCases() (cases []wireCase) {
	message, answer := sized(300)
	two := fragments(wireText, message, 150)
	five := fragments(wireText, message, 60)
	stray := func(more bool) wireFrame {
		return wireFrame{op: wireContinuation, payload: "non-continuation payload", more: more}
	}
	three := []wireFrame{stray(true), {op: wireText, payload: "fragment2", more: true}, {op: wireContinuation, payload: "fragment3"}}
	straight := slices.Clone(three)
	straight[0].more = false
	ways := func(number int, c wireCase) {
		for i, chop := range []int{0, -1, 1} {
			c.id, c.chop = fmt.Sprintf("5.%d", number+i), chop
			cases = append(cases, c)
		}
	}
	ways(3, wireCase{send: two, want: []string{answer}})
	ways(6, wireCase{send: []wireFrame{two[0], pingFrame("ping payload"), two[1]}, want: []string{"pong ping payload", answer}})
	ways(9, wireCase{send: []wireFrame{stray(false), textFrame(hello)}, fail: 1002})
	ways(12, wireCase{send: []wireFrame{stray(true), textFrame(hello)}, fail: 1002})
	hellos := fragments(wireText, hello, 7)
	pings := slices.Concat(five[:2], []wireFrame{pingFrame("pongme 1!")}, five[2:4], []wireFrame{pingFrame("pongme 2!")}, five[4:])
	pongs := []string{"pong pongme 1!", "pong pongme 2!", answer}
	return append(cases,
		wireCase{id: "5.1", send: []wireFrame{{op: wirePing, payload: "fragment1", more: true}, {op: wireContinuation, payload: "fragment2"}}, fail: 1002},
		wireCase{id: "5.2", send: []wireFrame{{op: wirePong, payload: "fragment1", more: true}, {op: wireContinuation, payload: "fragment2"}}, fail: 1002},
		wireCase{id: "5.15", send: append(hellos, stray(true), textFrame(hello)), want: []string{refusal}, fail: 1002},
		wireCase{id: "5.16", send: append(three, three...), fail: 1002},
		wireCase{id: "5.17", send: append(straight, straight...), fail: 1002},
		wireCase{id: "5.18", send: []wireFrame{{op: wireText, payload: "fragment1", more: true}, textFrame("fragment2")}, fail: 1002},
		wireCase{id: "5.19", send: pings, want: pongs},
		wireCase{id: "5.20", chop: -1, send: pings, want: pongs},
	)
}

// closeCases is group 7.
func closeCases() []wireCase {
	big, _ := sized(256 << 10)
	message, _ := sized(300)
	two := fragments(wireText, message, 150)
	normal := closeFrame(1000, "")
	longest := strings.Repeat("*", 123)
	cases := []wireCase{
		{id: "7.1.2", send: []wireFrame{normal, normal}, want: []string{"close 1000"}, fail: bySend},
		{id: "7.1.3", send: []wireFrame{normal, pingFrame("")}, want: []string{"close 1000"}, fail: bySend},
		{id: "7.1.4", send: []wireFrame{normal, textFrame(hello)}, want: []string{"close 1000"}, fail: bySend},
		{id: "7.1.5", send: []wireFrame{two[0], normal, two[1]}, want: []string{"close 1000"}, fail: bySend},
		{id: "7.1.6", send: []wireFrame{textFrame(big), normal, pingFrame("")}, want: []string{"close 1000"}, fail: bySend},
		{id: "7.3.1", send: []wireFrame{{op: wireClose}}, want: []string{"close|close 1000"}, fail: bySend},
		// The library takes a close of one byte for one of none, and answers it so.
		{id: "7.3.2", send: []wireFrame{{op: wireClose, payload: "a"}}, want: []string{"close|close 1002"}, fail: bySend},
		{id: "7.3.3", send: []wireFrame{normal}, want: []string{"close 1000"}, fail: bySend},
		{id: "7.3.4", send: []wireFrame{closeFrame(1000, hello)}, want: []string{"close 1000"}, fail: bySend},
		{id: "7.3.5", send: []wireFrame{closeFrame(1000, longest)}, want: []string{"close 1000"}, fail: bySend},
		{id: "7.3.6", send: []wireFrame{closeFrame(1000, longest+"*")}, fail: 1002},
		{id: "7.5.1", send: []wireFrame{closeFrame(1000, "\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce\xb5\xed\xa0\x80edited")}, want: []string{"close 1002|close 1007"}, fail: bySend},
		{id: "7.13.1", send: []wireFrame{closeFrame(5000, "")}, want: []string{"close 1002"}, fail: bySend},
		{id: "7.13.2", send: []wireFrame{closeFrame(65535, "")}, want: []string{"close 1002"}, fail: bySend},
	}
	// 1012 to 1014 were registered after the suite was made.
	for i, code := range []int{1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 3000, 3999, 4000, 4999, 1012, 1013} {
		want := []string{fmt.Sprintf("close %d|close 1000", code)}
		cases = append(cases, wireCase{id: fmt.Sprintf("7.7.%d", i+1), send: []wireFrame{closeFrame(code, "")}, want: want, fail: bySend})
	}
	for i, code := range []int{0, 999, 1004, 1005, 1006, 1016, 1100, 2000, 2999, 1015} {
		cases = append(cases, wireCase{id: fmt.Sprintf("7.9.%d", i+1), send: []wireFrame{closeFrame(code, "")}, want: []string{"close 1002"}, fail: bySend})
	}
	return cases
}

// TestWebSocketCloseAfterAnswer is 7.1.1.
func TestWebSocketCloseAfterAnswer(t *testing.T) {
	t.Parallel()
	g := digesting(t, "")
	w := g.openWire(t)
	message, answer := sized(300)
	w.send(0, textFrame(message))
	w.want(t, answer)
	w.leave(t)
}

// TestWebSocketPingsBesideAnswers is 2.10 while four answers flow: every frame stays
// whole, every ping is answered, in order.
func TestWebSocketPingsBesideAnswers(t *testing.T) {
	t.Parallel()
	base, _ := wall.Start(t)
	w := boot(t, overWall(base, "")).openWire(t)
	const tokens, pings = 400, 50
	var due []string
	for lane := range 4 {
		w.send(0, textFrame(fmt.Sprintf(`{"type":"create","stream_id":"%d","request":{"model":"wall:tokens=%d,burst=7,delay=1ms,seed=p%[1]d","messages":[{"role":"user","content":"go"}]}}`, lane, tokens)))
		due = append(due, "answer "+wall.Text(fmt.Sprint("p", lane), tokens))
	}
	for i := range pings {
		w.send(0, pingFrame(fmt.Sprint(i)))
	}
	for pong := 0; pong < pings || len(due) > 0; {
		got := w.next()
		if got == fmt.Sprintf("pong %d", pong) {
			pong++
			continue
		}
		at := slices.Index(due, got)
		if at < 0 {
			t.Fatalf("after %d pongs and %d answers: %.300q", pong, 4-len(due), got)
		}
		due = slices.Delete(due, at, at+1)
	}
	w.leave(t)
}
