package upstream

// chunks decodes the chunked transfer coding (RFC 9112 section 7.1) in place, over any
// number of calls. It is as strict as net/http: what it lets pass has one reading only.
type chunks struct {
	at     place
	left   int64 // data: bytes to come; size: what its digits say so far
	line   int   // bytes of the size line being read
	excess int64 // framing beyond what the data accounts for
	used   int   // bytes of trailers
}

// place is what the next byte belongs to.
type place uint8

const (
	size      place = iota
	padding         // behind the digits of a size
	extension       // of a chunk, up to its CR
	sizeLF          // behind the CR of a size line
	data            //
	dataCR          // behind the data
	dataLF          //
	trailer         // at the beginning of a line
	trailerIn       // within a name
	trailerOf       // within a value
	trailerLF       // behind the CR of one
	lastLF          // behind the CR of the empty line
	complete        //
)

const (
	maxDigits   = 15 // of a chunk's size
	maxSizeLine = 4 << 10
	maxTrailers = 64 << 10
	// A chunk may have 16 bytes of framing, and two for each of its data. A body may
	// exceed that by so much in all: more is no way to send an answer.
	maxExcess = 16 << 10
)

func (d *chunks) done() bool { return d.at == complete }

// decode moves the data in p to its front. It returns how much that is and how many
// bytes of p belong to the body.
func (d *chunks) decode(p []byte) (n, used int, err error) {
	for used < len(p) && d.at != complete {
		if d.at != data {
			if err := d.frame(p[used]); err != nil {
				return n, used, err
			}
			used++
			continue
		}
		k := int(min(d.left, int64(len(p)-used)))
		if n != used {
			copy(p[n:], p[used:used+k])
		}
		n, used = n+k, used+k
		if d.left -= int64(k); d.left == 0 {
			d.at = dataCR
		}
	}
	return n, used, nil
}

// frame takes one byte that is no data.
func (d *chunks) frame(c byte) error {
	switch d.at {
	case size, padding, extension:
		return d.sizeLine(c)
	case sizeLF:
		if c != '\n' {
			return malformed("the end of a chunk's size")
		}
		return d.begin()
	case dataCR:
		d.at = dataLF
		return expect(c, '\r')
	case dataLF:
		d.at, d.line = size, 0
		return expect(c, '\n')
	default:
		return d.trailer(c)
	}
}

func (d *chunks) sizeLine(c byte) error {
	if d.line++; d.line > maxSizeLine {
		return malformed("a chunk's size line of more than %d bytes", maxSizeLine)
	}
	v, isDigit := hexDigit(c)
	switch {
	case d.at == size && isDigit && d.line <= maxDigits:
		d.left = d.left<<4 | int64(v)
		return nil
	case d.at == size && d.line == 1:
	case c == '\r':
		d.at = sizeLF
		return nil
	case d.at == extension && c != '\n':
		return nil
	case d.at == size && c == ';':
		d.at = extension
		return nil
	case d.at != extension && (c == ' ' || c == '\t'): // some servers pad the size
		d.at = padding
		return nil
	}
	return malformed("a chunk's size")
}

// begin enters a chunk whose size line has been read.
func (d *chunks) begin() error {
	d.excess = max(d.excess+int64(d.line)+3-16-2*d.left, 0)
	switch d.at = data; {
	case d.excess > maxExcess:
		return malformed("chunks with %d bytes more framing than data", maxExcess)
	case d.left == 0:
		d.at = trailer
	}
	return nil
}

func (d *chunks) trailer(c byte) error {
	if d.used++; d.used > maxTrailers {
		return malformed("trailers of more than %d bytes", maxTrailers)
	}
	switch {
	case d.at == trailer && c == '\r':
		d.at = lastLF
	case (d.at == trailer || d.at == trailerIn) && tokenBytes[c]:
		d.at = trailerIn
	case d.at == trailerIn && c == ':':
		d.at = trailerOf
	case d.at == trailerOf && c == '\r':
		d.at = trailerLF
	case d.at == trailerOf && isValueByte(c):
	case d.at == trailerLF && c == '\n':
		d.at = trailer
	case d.at == lastLF && c == '\n':
		d.at = complete
	default:
		return malformed("a trailer")
	}
	return nil
}

func expect(c, want byte) error {
	if c != want {
		return malformed("the end of a chunk")
	}
	return nil
}

func hexDigit(c byte) (byte, bool) {
	switch {
	case c >= '0' && c <= '9':
		return c - '0', true
	case c|0x20 >= 'a' && c|0x20 <= 'f':
		return c | 0x20 - 'a' + 10, true
	}
	return 0, false
}
