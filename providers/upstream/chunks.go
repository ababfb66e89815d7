package upstream

// chunks decodes the chunked transfer coding (RFC 9112 section 7.1) in place, over any
// number of calls.
type chunks struct {
	at   place
	left int64 // data: bytes to come; size: what its digits say so far
	line int   // bytes of the line being read, or digits of a size
	used int   // bytes of trailers
}

// place is what the next byte belongs to.
type place uint8

const (
	size      place = iota
	extension       // of a chunk, up to its CR
	sizeLF          // behind the CR of a size line
	data            //
	dataCR          // behind the data
	dataLF          //
	trailer         // at the beginning of a line
	trailerIn       // within one
	trailerLF       // behind the CR of one
	lastLF          // behind the CR of the empty line
	complete        //
)

const (
	maxDigits    = 15 // of a chunk's size
	maxExtension = 4 << 10
	maxTrailers  = 64 << 10
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
	case size:
		return d.size(c)
	case extension:
		if d.line++; d.line > maxExtension || c == '\n' {
			return malformed("a chunk's extension")
		}
		if c == '\r' {
			d.at = sizeLF
		}
		return nil
	case sizeLF:
		d.at, d.line = data, 0
		if d.left == 0 {
			d.at = trailer
		}
		return expect(c, '\n')
	case dataCR:
		d.at = dataLF
		return expect(c, '\r')
	case dataLF:
		d.at = size
		return expect(c, '\n')
	default:
		return d.trailer(c)
	}
}

func (d *chunks) size(c byte) error {
	v, ok := hexDigit(c)
	switch {
	case ok && d.line < maxDigits:
		d.left = d.left<<4 | int64(v)
		d.line++
		return nil
	case d.line == 0:
	case c == '\r':
		d.at = sizeLF
		return nil
	case c == ';' || c == ' ' || c == '\t':
		d.at, d.line = extension, 0
		return nil
	}
	return malformed("a chunk's size")
}

func (d *chunks) trailer(c byte) error {
	if d.used++; d.used > maxTrailers {
		return malformed("trailers of more than %d bytes", maxTrailers)
	}
	switch d.at {
	case trailer, trailerIn:
		switch {
		case c == '\r' && d.at == trailer:
			d.at = lastLF
		case c == '\r':
			d.at = trailerLF
		case c == '\n':
			return malformed("a trailer")
		default:
			d.at = trailerIn
		}
		return nil
	case trailerLF:
		d.at = trailer
	default:
		d.at = complete
	}
	return expect(c, '\n')
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
