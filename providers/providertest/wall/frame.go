package wall

import "strconv"

// frame appends one event as it goes on the wire.
func (p *player) frame(dst []byte, pt part) []byte {
	s := &p.s
	if pt.raw {
		return append(dst, pt.data...)
	}
	nl := p.newline()
	if p.events == 0 && s.BOM {
		dst = append(dst, "\uFEFF"...)
	}
	dst = append(dst, p.owed...)
	if p.events == 0 && s.RetryLine {
		dst = append(append(dst, "retry: 3000"...), nl...)
	}
	if s.IDLines {
		dst = append(strconv.AppendInt(append(dst, "id: "...), int64(p.events), 10), nl...)
	}
	if pt.name != "" {
		dst = append(append(append(dst, "event: "...), pt.name...), nl...)
	}
	dst = append(dst, p.field()...)
	data := pt.data
	if pt.seq > 0 {
		// Numbers are given when an event goes out, because pings and errors may come between.
		p.numbered = strconv.AppendInt(append(p.numbered[:0], data[:pt.seq]...), int64(p.seq), 10)
		p.numbered = append(p.numbered, data[pt.seq:]...)
		data = p.numbered
		p.seq++
	}
	if s.Spaced && len(data) > 0 && data[0] == '{' {
		p.scratch = spaceJSON(p.scratch[:0], data)
		data = p.scratch
	}
	if s.Multiline && len(data) > 1 && data[0] == '{' {
		dst = append(append(append(dst, '{'), nl...), p.field()...)
		data = data[1:]
	}
	dst = append(append(dst, data...), nl...)
	p.events++
	if s.Unterminated {
		p.owed = []byte(nl)
		return dst
	}
	return append(dst, nl...)
}

func (p *player) newline() string {
	switch {
	case p.s.CRLF:
		return "\r\n"
	case p.s.CR:
		return "\r"
	}
	return "\n"
}

func (p *player) field() string {
	if p.s.NoSpace {
		return "data:"
	}
	return "data: "
}

func (p *player) appendPing() {
	nl := p.newline()
	line := func(s string) { p.buf = append(append(p.buf, s...), nl...) }
	switch p.s.Ping {
	case "text":
		line(": keep-alive")
	case "single":
		line(": keep-alive")
		return
	case "space":
		line(" ")
		return
	case "blank":
	case "event":
		line("event: ping")
	case "event_empty":
		line("event: ping")
		line("data:")
	case "event_data":
		line("event: ping")
		line(p.field() + `{"type":"ping"}`)
	case "empty":
		line("data:")
	case "delta":
		p.emit(p.d.ping())
		return
	default:
		line(":")
	}
	line("")
}
