package main

import (
	"bytes"
	"cmp"
	"fmt"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"unicode/utf8"
)

// Origin is a layer of configuration; a larger one wins.
type Origin int

// The layers, weakest first.
const (
	FromDefault Origin = iota
	FromFile
	FromEnv
	FromFlag
	FromOverride
)

// Source tells where a value comes from. The zero value is "default".
type Source struct {
	Origin       Origin
	Name         string // the file, the environment variable or the flag, or who set it over them and when
	Line, Column int    // in the file, from 1; columns count characters
}

// String is "default", "config.toml:3:1", "env SLUICE_LOG__LEVEL", "flag --listen" or
// "override by ada at 2026-11-01T12:00:00Z".
func (s Source) String() string {
	switch s.Origin {
	case FromFile:
		if s.Line == 0 {
			return s.Name
		}
		return fmt.Sprintf("%s:%d:%d", s.Name, s.Line, s.Column)
	case FromEnv:
		return "env " + s.Name
	case FromFlag:
		return "flag " + s.Name
	case FromOverride:
		return "override " + s.Name
	default:
		return "default"
	}
}

// Problem is one thing wrong with the configuration. Neither its message nor
// its excerpt ever holds a secret.
type Problem struct {
	Source  Source
	Path    string // key path, "" for a syntax error
	Msg     string
	at      span   // where, in the file
	excerpt string // the line with a caret under the place, "" outside files
}

// String is "source: key.path: message" and the excerpt on lines below.
func (p Problem) String() string {
	var b strings.Builder
	b.WriteString(p.Source.String())
	if p.Path != "" {
		b.WriteString(": " + p.Path)
	}
	b.WriteString(": " + p.Msg)
	if p.excerpt != "" {
		b.WriteString("\n" + p.excerpt)
	}
	return b.String()
}

// ConfigError is everything that is wrong with a configuration, at least one
// Problem, in the order of the file, then the environment, then flags.
type ConfigError struct{ Problems []Problem }

// Error lists all problems, one after another.
func (e *ConfigError) Error() string {
	parts := make([]string, len(e.Problems))
	for i, p := range e.Problems {
		parts[i] = p.String()
	}
	return strings.Join(parts, "\n")
}

func sortProblems(problems []Problem) {
	slices.SortStableFunc(problems, func(a, b Problem) int {
		return cmp.Or(cmp.Compare(a.Source.Origin, b.Source.Origin),
			cmp.Compare(a.Source.Line, b.Source.Line), cmp.Compare(a.Source.Column, b.Source.Column),
			cmp.Compare(a.Source.Name, b.Source.Name))
	})
}

// source names a place in the document.
func (doc *document) source(offset int) Source {
	starts := doc.lineStarts()
	offset = min(offset, len(doc.data))
	line, exact := slices.BinarySearch(starts, offset)
	if !exact {
		line--
	}
	before := doc.data[starts[line]:offset]
	column := len(before) + 1
	if len(before) < 4096 { // a longer line is counted in bytes, or positions would take quadratic time
		column = utf8.RuneCount(before) + 1
	}
	return Source{FromFile, doc.name, line + 1, column}
}

// lineStarts gives the offset of every line, computed once.
func (doc *document) lineStarts() []int {
	if doc.starts == nil {
		doc.starts = []int{0}
		for i, c := range doc.data {
			if c == '\n' {
				doc.starts = append(doc.starts, i+1)
			}
		}
	}
	return doc.starts
}

// offset is the inverse of go-toml's position, whose columns count bytes.
func (doc *document) offset(line, column int) int {
	starts := doc.lineStarts()
	line = min(max(line, 1), len(starts))
	return min(starts[line-1]+max(column-1, 0), len(doc.data))
}

// lineAround gives the range of the line that holds an offset.
func (doc *document) lineAround(offset int) span {
	start := bytes.LastIndexByte(doc.data[:offset], '\n') + 1
	end := len(doc.data)
	if n := bytes.IndexByte(doc.data[start:], '\n'); n >= 0 {
		end = start + n
	}
	if end > start && doc.data[end-1] == '\r' {
		end--
	}
	return span{start, end}
}

// maxExcerpt is how many characters of a line are shown.
const maxExcerpt = 120

// excerpt shows the line of a place with a caret under it. Whatever is not
// known to be harmless is shown as ***; hidden tells whether anything was.
func (doc *document) excerpt(at span) (text string, hidden bool) {
	at.start = min(at.start, len(doc.data))
	line := doc.lineAround(at.start)
	var shown []rune
	caret, caretEnd := -1, -1
	write := func(s string) {
		for _, r := range s {
			if r != '\t' && (r < ' ' || r == 0x7f || r == utf8.RuneError) {
				r = '·'
			}
			shown = append(shown, r)
		}
	}
	masks, stop := doc.masks(line)
	for i := line.start; i < stop; {
		if i >= at.start && caret < 0 {
			caret = len(shown)
		}
		if i >= at.end && caretEnd < 0 {
			caretEnd = len(shown)
		}
		if len(masks) > 0 && i >= masks[0].start {
			hidden = true
			if at.start > i && at.start < masks[0].end {
				caret, at.end = len(shown), masks[0].end
			}
			write(masked)
			i, masks = max(masks[0].end, i+1), masks[1:]
			continue
		}
		_, size := utf8.DecodeRune(doc.data[i:])
		write(string(doc.data[i:min(i+size, stop)]))
		i += size
	}
	if caret < 0 {
		caret = len(shown)
	}
	if caretEnd < 0 {
		caretEnd = len(shown)
	}
	return layOutExcerpt(doc.source(at.start).Line, shown, caret, max(caretEnd, caret+1)), hidden
}

// layOutExcerpt cuts a long line around the caret and draws it.
func layOutExcerpt(line int, shown []rune, caret, end int) string {
	if from := caret - maxExcerpt/2; len(shown) > maxExcerpt && from > 0 {
		shown = append([]rune("…"), shown[from:]...)
		caret, end = caret-from+1, end-from+1
	}
	if len(shown) > maxExcerpt {
		shown = append(shown[:maxExcerpt:maxExcerpt], '…')
	}
	end = min(max(end, caret+1), max(len(shown), caret+1))
	pad := make([]rune, 0, caret)
	for i := range caret {
		if i < len(shown) && shown[i] == '\t' {
			pad = append(pad, '\t')
			continue
		}
		pad = append(pad, ' ')
	}
	number := fmt.Sprint(line)
	text := strings.TrimRight(string(shown), " \t")
	return fmt.Sprintf("  %s | %s\n  %s | %s%s", number, text,
		strings.Repeat(" ", len(number)), string(pad), strings.Repeat("^", end-caret))
}

// masks lists the parts of a line to hide, in order, and where to stop: a
// comment is never shown, for old secrets live on in comments.
func (doc *document) masks(line span) (masks []span, stop int) {
	if !doc.parsed {
		return doc.masksUnparsed(line)
	}
	after := line.start
	for _, n := range doc.leaves {
		if n.val.end <= line.start || n.val.start >= line.end {
			continue
		}
		after = max(after, min(n.val.end, line.end))
		if !n.shown {
			masks = append(masks, span{max(n.val.start, line.start), min(n.val.end, line.end)})
		}
	}
	slices.SortFunc(masks, func(a, b span) int { return cmp.Compare(a.start, b.start) })
	stop = line.end
	if c := bytes.IndexByte(doc.data[after:line.end], '#'); c >= 0 {
		stop = after + c
	}
	return masks, stop
}

var (
	headerLine = regexp.MustCompile(`(?m)^[ \t]*\[\[?[ \t]*([A-Za-z0-9_.-]+)`)
	plainKey   = regexp.MustCompile(`^[ \t]*([A-Za-z0-9_.-]+)[ \t]*=[ \t]*`)
)

// masksUnparsed decides about a line of a document that is no TOML: a header
// is shown, and a value if its key is known to be no secret.
func (doc *document) masksUnparsed(line span) ([]span, int) {
	text := doc.data[line.start:line.end]
	all := []span{line}
	if bytes.Count(text, []byte("=")) > 1 {
		return all, line.end
	}
	headers := headerLine.FindAllSubmatch(doc.data[:line.end], -1)
	if m := headerLine.FindIndex(text); m != nil && !bytes.ContainsAny(text, "=\"'") {
		if c := bytes.IndexByte(text, '#'); c >= 0 {
			return nil, line.start + c
		}
		return nil, line.end
	}
	m := plainKey.FindSubmatchIndex(text)
	if m == nil {
		if known := bytes.TrimSpace(text); isKeyName(string(known)) {
			return nil, line.end
		}
		return all, line.end
	}
	var path []string
	if len(headers) > 0 {
		path = strings.Split(string(headers[len(headers)-1][1]), ".")
	}
	path = append(path, strings.Split(string(text[m[2]:m[3]]), ".")...)
	if t, ok := typeAt(path); ok && !isSecret(t) && bytes.IndexByte(text, '#') < 0 {
		return nil, line.end
	}
	return []span{{line.start + m[1], line.end}}, line.end
}

// typeAt finds the type of a key from its path without indices.
func typeAt(path []string) (reflect.Type, bool) {
	t := reflect.TypeFor[Config]()
	for _, name := range path {
		for shapeOf(t) == shapeTables {
			t = t.Elem()
		}
		if shapeOf(t) == shapeMap {
			return t.Elem(), true
		}
		if shapeOf(t) != shapeTable {
			return nil, false
		}
		f, ok := fieldOf(t, name)
		if !ok {
			return nil, false
		}
		t = f.typ
	}
	return t, shapeOf(t) != shapeTable && shapeOf(t) != shapeTables
}

// isKeyName tells whether a word is the last part of any key of ours.
func isKeyName(word string) bool {
	for _, path := range keyPaths() {
		if path[strings.LastIndexByte(path, '.')+1:] == word {
			return true
		}
	}
	return false
}

var quoted = regexp.MustCompile("\"[^\"]{2,}\"|'[^']{2,}'|`[^`]{2,}`|[0-9]{7,}")

// hideQuoted takes quoted text and long numbers out of a foreign message, and
// leaves single characters.
func hideQuoted(msg string) string { return quoted.ReplaceAllString(msg, masked) }
