package main

import (
	"bytes"
	"errors"
	"strings"

	toml "github.com/pelletier/go-toml/v2"
	"github.com/pelletier/go-toml/v2/unstable"
)

// nodeKind is what a value was written as.
type nodeKind int

const (
	nodeString nodeKind = iota
	nodeInt
	nodeFloat
	nodeBool
	nodeTime
	nodeArray
	nodeTable
	nodeText // from the environment or a flag: the type of the key decides what it is
)

func (k nodeKind) String() string {
	return [...]string{"a string", "an integer", "a number", "a boolean", "a date or time", "an array", "a table", "text"}[k]
}

// span is a range of bytes in the document.
type span struct{ start, end int }

// node is one value before it is decoded, with everything that an error
// message about it needs.
type node struct {
	kind  nodeKind
	text  string // the string itself, before expansion, or a scalar as it was written
	keys  map[string]*node
	order []string // of keys, as first written
	elems []*node

	src   Source
	key   span // in the document; empty for the environment and flags
	val   span
	shown bool // known to be no secret, so excerpts may show it
}

func newTable(src Source, key span) *node {
	return &node{kind: nodeTable, keys: map[string]*node{}, src: src, key: key, val: key}
}

func (n *node) put(name string, child *node) {
	if _, ok := n.keys[name]; !ok {
		n.order = append(n.order, name)
	}
	n.keys[name] = child
}

func (n *node) drop(name string) {
	delete(n.keys, name)
	for i, k := range n.order {
		if k == name {
			n.order = append(n.order[:i:i], n.order[i+1:]...)
			return
		}
	}
}

// document is one parsed configuration file.
type document struct {
	name   string
	data   []byte
	starts []int   // of lines; see lineStarts
	leaves []*node // every scalar, in order, for the masking of excerpts
	parsed bool    // leaves is complete
}

// maxDocument bounds a configuration file.
const maxDocument = 1 << 20

// parseDocument reads TOML into a tree of nodes. A syntax error is the only
// one reported, as nothing after it can be trusted; it comes as a Problem.
func parseDocument(doc *document) (*node, *Problem) {
	doc.data = bytes.TrimPrefix(doc.data, []byte("\xef\xbb\xbf"))
	var everything map[string]any
	if err := toml.Unmarshal(doc.data, &everything); err != nil {
		return nil, doc.syntaxProblem(err)
	}
	b := &treeBuilder{doc: doc, root: newTable(doc.source(0), span{})}
	b.table = b.root
	b.parser.Reset(doc.data)
	for b.parser.NextExpression() {
		if !b.expression(b.parser.Expression()) {
			return nil, doc.syntaxProblem(errors.New("toml: this table was already defined as something else"))
		}
	}
	if err := b.parser.Error(); err != nil {
		return nil, doc.syntaxProblem(err)
	}
	doc.parsed = true
	return b.root, nil
}

// syntaxProblem gives an error of go-toml its position.
func (doc *document) syntaxProblem(err error) *Problem {
	at := span{}
	var decode *toml.DecodeError
	if errors.As(err, &decode) {
		line, column := decode.Position()
		at.start = doc.offset(line, column)
		at.end = at.start + 1
	}
	excerpt, hidden := doc.excerpt(at)
	msg := strings.TrimPrefix(err.Error(), "toml: ")
	if hidden {
		msg = hideQuoted(msg)
	}
	return &Problem{Source: doc.source(at.start), Msg: msg, excerpt: excerpt}
}

// treeBuilder follows the expressions of a document, which go-toml has
// already found to be consistent.
type treeBuilder struct {
	doc    *document
	parser unstable.Parser
	root   *node
	table  *node // the one that key-values belong to now
}

func (b *treeBuilder) expression(e *unstable.Node) bool {
	switch e.Kind {
	case unstable.Table, unstable.ArrayTable:
		t := b.descend(b.root, e.Key(), e.Kind == unstable.ArrayTable)
		if t == nil {
			return false
		}
		b.table = t
		return true
	case unstable.KeyValue:
		return b.keyValue(b.table, e)
	}
	return true
}

// descend walks a dotted key of tables, making what is missing. With append
// the last part is an array that grows by one table.
func (b *treeBuilder) descend(t *node, parts unstable.Iterator, grow bool) *node {
	for more := parts.Next(); more; {
		part := parts.Node()
		name, at := string(part.Data), rangeOf(part)
		more = parts.Next()
		child := t.keys[name]
		if !more && grow {
			if child == nil {
				child = &node{kind: nodeArray, src: b.doc.source(at.start), key: at, val: at}
				t.put(name, child)
			}
			if child.kind != nodeArray {
				return nil
			}
			child.elems = append(child.elems, newTable(b.doc.source(at.start), at))
		}
		if child == nil {
			child = newTable(b.doc.source(at.start), at)
			t.put(name, child)
		}
		if child.kind == nodeArray && len(child.elems) > 0 {
			child = child.elems[len(child.elems)-1]
		}
		if child.kind != nodeTable {
			return nil
		}
		t = child
	}
	return t
}

func (b *treeBuilder) keyValue(t *node, e *unstable.Node) bool {
	parts := e.Key()
	var names []string
	var at []span
	for parts.Next() {
		names = append(names, string(parts.Node().Data))
		at = append(at, rangeOf(parts.Node()))
	}
	last := len(names) - 1
	for i, name := range names[:last] {
		child := t.keys[name]
		if child == nil {
			child = newTable(b.doc.source(at[i].start), at[i])
			t.put(name, child)
		}
		if child.kind != nodeTable {
			return false
		}
		t = child
	}
	end := int(e.Raw.Offset + e.Raw.Length)
	v := b.value(e.Value(), at[last], span{b.valueStart(at[last].end, end), end})
	t.put(names[last], v)
	return true
}

// valueStart skips the equals sign between a key and its value.
func (b *treeBuilder) valueStart(from, end int) int {
	rest := b.doc.data[from:end]
	return from + len(rest) - len(bytes.TrimLeft(rest, " \t="))
}

// value turns a value into a node; at is where it stands if it does not know
// itself (arrays and inline tables do not).
func (b *treeBuilder) value(v *unstable.Node, key, at span) *node {
	n := &node{src: b.doc.source(key.start), key: key, val: at, text: string(v.Data)}
	if v.Raw.Length > 0 && v.Kind != unstable.InlineTable {
		n.val = rangeOf(v)
	}
	switch v.Kind {
	case unstable.Array:
		n.kind = nodeArray
		for it := v.Children(); it.Next(); {
			elem, place := it.Node(), key
			if elem.Kind == unstable.Comment {
				continue
			}
			if elem.Raw.Length > 0 { // an inline table is placed at its brace
				place = rangeOf(elem)
			}
			n.elems = append(n.elems, b.value(elem, place, place))
		}
		return n
	case unstable.InlineTable:
		n.kind, n.keys = nodeTable, map[string]*node{}
		for it := v.Children(); it.Next(); {
			if it.Node().Kind == unstable.KeyValue {
				b.keyValue(n, it.Node())
			}
		}
		return n
	case unstable.Bool:
		n.kind = nodeBool
	case unstable.Integer:
		n.kind = nodeInt
	case unstable.Float:
		n.kind = nodeFloat
	case unstable.String:
		n.kind = nodeString
	default:
		n.kind = nodeTime
	}
	b.doc.leaves = append(b.doc.leaves, n)
	return n
}

func rangeOf(n *unstable.Node) span {
	return span{int(n.Raw.Offset), int(n.Raw.Offset + n.Raw.Length)}
}

// parseValue reads one TOML value from the environment or a flag; its nodes
// carry that source and no position.
func parseValue(text string, src Source) (*node, error) {
	root, problem := parseDocument(&document{name: src.Name, data: []byte("value = " + text + "\n")})
	if problem != nil {
		return nil, errors.New("want a TOML value such as [\"a\", \"b\"] or { name = \"x\" }")
	}
	if len(root.keys) != 1 || root.keys["value"] == nil {
		return nil, errors.New("want one TOML value")
	}
	v := root.keys["value"]
	v.detach(src)
	return v, nil
}

// detach gives a whole tree another source, outside any document.
func (n *node) detach(src Source) {
	n.src, n.key, n.val = src, span{}, span{}
	for _, child := range n.keys {
		child.detach(src)
	}
	for _, child := range n.elems {
		child.detach(src)
	}
}
