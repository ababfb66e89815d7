package admin

import (
	"encoding/csv"
	"mime"
	"strconv"
	"strings"
	"time"
)

// wantsCSV reports whether the answer is to be CSV: by the parameter "format", else by the
// header Accept.
func (c *call) wantsCSV() (bool, error) {
	switch c.query("format") {
	case "csv":
		return true, nil
	case "json":
		return false, nil
	case "":
	default:
		return false, badField("format", "format must be json or csv.")
	}
	for part := range strings.SplitSeq(c.r.Header.Get("Accept"), ",") {
		if kind, _, err := mime.ParseMediaType(part); err == nil && (kind == "text/csv" || kind == "application/json") {
			return kind == "text/csv", nil
		}
	}
	return false, nil
}

// table writes CSV (RFC 4180) that is saved as a file.
type table struct {
	out *csv.Writer
	row []string
}

// csv begins a table. After it no error can be told but by cutting the answer off.
func (c *call) csv(name string, columns ...string) *table {
	c.w.Header().Set("Content-Disposition", mime.FormatMediaType("attachment", map[string]string{"filename": name + ".csv"}))
	t := &table{out: csv.NewWriter(c.stream("text/csv; charset=utf-8"))}
	t.out.UseCRLF = true
	_ = t.out.Write(columns) // Flush tells
	return t
}

// text adds a cell that may hold what callers made up. One that a spreadsheet would take for
// a formula is quoted as one.
func (t *table) text(s string) *table {
	t.row = append(t.row, cell(s))
	return t
}

// number adds a cell that the gateway counted.
func (t *table) number(n int64) *table {
	t.row = append(t.row, strconv.FormatInt(n, 10))
	return t
}

// exact adds a cell as it is: a time, a number with decimals, "".
func (t *table) exact(s string) *table {
	t.row = append(t.row, s)
	return t
}

func (t *table) time(at time.Time) *table {
	if at.IsZero() {
		return t.exact("")
	}
	return t.exact(at.UTC().Format(time.RFC3339Nano))
}

// next ends a row.
func (t *table) next() error {
	err := t.out.Write(t.row)
	t.row = t.row[:0]
	return err
}

// done ends the table.
func (t *table) done() error {
	t.out.Flush()
	return t.out.Error()
}

// usd is an amount of money in US dollars, as a number of JSON with as many decimals as it
// has.
type usd int64

func (u usd) String() string {
	n, sign := int64(u), ""
	if n < 0 {
		n, sign = -n, "-"
	}
	part := strconv.FormatInt(1e9+n%1e9, 10)[1:]
	return sign + strconv.FormatInt(n/1e9, 10) + "." + part[:2] + strings.TrimRight(part[2:], "0")
}

// MarshalJSON writes a number.
func (u usd) MarshalJSON() ([]byte, error) { return []byte(u.String()), nil }

// millis is a duration in milliseconds, as a number of JSON.
type millis time.Duration

// MarshalJSON writes up to three decimals.
func (m millis) MarshalJSON() ([]byte, error) { return []byte(m.String()), nil }

func (m millis) String() string {
	us := time.Duration(m).Microseconds()
	return strconv.FormatFloat(float64(us)/1000, 'f', -1, 64)
}

// some is nil for 0, which stands for what has not happened.
func some(d time.Duration) *millis {
	if d <= 0 {
		return nil
	}
	m := millis(d)
	return &m
}

// period reads the parameters start and end. The end is now, or the beginning so long
// before it, when it is absent.
func (c *call) period(usual time.Duration) (start, end time.Time, err error) {
	if end, err = c.moment("end", c.s.opt.Now().UTC()); err != nil {
		return start, end, err
	}
	if start, err = c.moment("start", end.Add(-usual)); err != nil {
		return start, end, err
	}
	if !start.Before(end) {
		err = badField("start", "start must be before end.")
	}
	return start, end, err
}

// moment reads a time: unix seconds, a date, or RFC 3339.
func (c *call) moment(name string, otherwise time.Time) (time.Time, error) {
	text := c.query(name)
	if text == "" {
		return otherwise, nil
	}
	if n, err := strconv.ParseInt(text, 10, 64); err == nil && n >= 0 && n < 1<<36 {
		return time.Unix(n, 0).UTC(), nil
	}
	for _, layout := range []string{time.DateOnly, time.RFC3339} {
		if t, err := time.Parse(layout, text); err == nil && t.Year() >= 1970 && t.Year() < 4000 {
			return t.UTC(), nil
		}
	}
	return otherwise, badField(name, "%s is a time: unix seconds, a date such as 2026-11-01, or RFC 3339.", name)
}
