package main

import (
	"cmp"
	"errors"
	"fmt"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// envPrefix begins every environment variable that overrides a key:
// SLUICE_SERVER__LISTEN is server.listen, SLUICE_UPSTREAMS__0__API_KEY is
// upstreams[0].api_key.
const envPrefix = "SLUICE_"

// Variables with our prefix that are no keys: the path of the configuration
// file, and the key that `chat` and `bench` call with.
const (
	envConfig = envPrefix + "CONFIG"
	envKey    = envPrefix + "KEY"
)

// kubernetesVar matches what Kubernetes puts into every pod beside a Service
// that is named sluice or sluice-something.
var kubernetesVar = regexp.MustCompile(`^SLUICE(_[A-Z0-9]+)*_(SERVICE_HOST|SERVICE_PORT(_[A-Z0-9_]+)?|PORT(_[A-Z0-9_]+)?)$`)

// setting is one override from the environment or a flag.
type setting struct {
	path []string // the keys and indices on the way
	text string
	node *node // instead of text, where the value is known by its type
	src  Source
}

// errUnknownKey marks a path that leads to no key of ours.
var errUnknownKey = errors.New("unknown key")

// envSettings picks the overrides out of an environment, indices in order.
func envSettings(environ []string) []setting {
	var settings []setting
	for _, kv := range environ {
		name, value, _ := strings.Cut(kv, "=")
		rest, ours := strings.CutPrefix(name, envPrefix)
		if !ours || name == envConfig || name == envKey || kubernetesVar.MatchString(name) && !strings.Contains(name, "__") {
			continue
		}
		settings = append(settings, setting{
			path: strings.Split(strings.ToLower(rest), "__"),
			text: value, src: Source{Origin: FromEnv, Name: name},
		})
	}
	slices.SortStableFunc(settings, func(a, b setting) int {
		return slices.CompareFunc(a.path, b.path, func(x, y string) int {
			i, errI := strconv.Atoi(x)
			j, errJ := strconv.Atoi(y)
			if errI == nil && errJ == nil {
				return cmp.Compare(i, j)
			}
			return cmp.Compare(x, y)
		})
	})
	return settings
}

// flagSetting reads the a.b=c of --set; indices are a.0.b or a[0].b.
func flagSetting(arg string) (setting, error) {
	path, value, ok := strings.Cut(arg, "=")
	path = strings.TrimSpace(path)
	if !ok || path == "" {
		return setting{}, errors.New("--set wants section.key=value")
	}
	path = strings.NewReplacer("[", ".", "]", "").Replace(path)
	return setting{
		path: strings.Split(path, "."), text: value,
		src: Source{Origin: FromFlag, Name: "--set " + strings.Join(strings.Split(path, "."), ".")},
	}, nil
}

// name writes the path of a setting as messages show it.
func (s setting) name() string {
	path := ""
	for i, part := range s.path {
		if _, err := strconv.Atoi(part); err == nil && i > 0 {
			path += "[" + part + "]"
			continue
		}
		path = join(path, part)
	}
	return path
}

// apply puts a setting into the tree, over what a weaker layer said.
func (s setting) apply(root *node) error {
	t := reflect.TypeFor[Config]()
	n := root
	for i := 0; i < len(s.path); i++ {
		part, last := s.path[i], i == len(s.path)-1
		f, ok := fieldOf(t, part)
		if !ok {
			return fmt.Errorf("%w%s", errUnknownKey, didYouMean(part, fieldNames(t)))
		}
		var err error
		switch shapeOf(f.typ) {
		case shapeTable:
			if last {
				return fmt.Errorf("%w: it is a section; name one of its keys", errUnknownKey)
			}
			n, t = n.child(part, nodeTable, s.src), f.typ
		case shapeTables:
			if last {
				return s.assign(n, t, f)
			}
			i++
			n, err = n.child(part, nodeArray, s.src).element(s.path[i], f.name, s.src)
			if err != nil {
				return err
			}
			if i == len(s.path)-1 {
				return fmt.Errorf("%w: it is a table; name one of its keys", errUnknownKey)
			}
			t = f.typ.Elem()
		case shapeMap:
			if last {
				return s.assign(n, t, f)
			}
			return s.assignFree(n.child(part, nodeTable, s.src), s.path[i+1:])
		default:
			if !last {
				return fmt.Errorf("%w: %s has no keys below it", errUnknownKey, f.name)
			}
			return s.assign(n, t, f)
		}
		if n == nil {
			return nil // the file has something else there, and is told so
		}
	}
	return nil
}

// assign sets one key, and drops the weaker forms of the same thing (api_key
// over api_key_file).
func (s setting) assign(n *node, t reflect.Type, f field) error {
	if n == nil || n.kind != nodeTable {
		return nil
	}
	v, err := s.valueFor(f.typ)
	if err != nil {
		return err
	}
	for _, other := range fieldsOf(t) {
		if f.group != "" && other.group == f.group && other.name != f.name {
			if weak := n.keys[other.name]; weak != nil && weak.src.Origin < s.src.Origin {
				n.drop(other.name)
			}
		}
	}
	n.put(f.name, v)
	return nil
}

// assignFree sets one entry of a table with free keys. Environment variables
// have no dashes in their names, so there X_TEAM is x-team.
func (s setting) assignFree(n *node, rest []string) error {
	if n == nil || n.kind != nodeTable {
		return nil
	}
	name := strings.Join(rest, ".")
	if s.src.Origin == FromEnv {
		name = strings.ReplaceAll(strings.Join(rest, "__"), "_", "-")
	}
	n.put(name, &node{kind: nodeText, text: s.text, src: s.src})
	return nil
}

// valueFor makes the node for a key of a type: text for a scalar, TOML for
// the rest; a list may also be written a,b.
func (s setting) valueFor(t reflect.Type) (*node, error) {
	if s.node != nil {
		return s.node, nil
	}
	text := strings.TrimSpace(s.text)
	switch shapeOf(t) {
	case shapeMap, shapeTables:
		return parseValue(text, s.src)
	case shapeList:
		if strings.HasPrefix(text, "[") {
			return parseValue(text, s.src)
		}
		list := &node{kind: nodeArray, src: s.src}
		for part := range strings.SplitSeq(text, ",") {
			if part = strings.TrimSpace(part); part != "" {
				list.elems = append(list.elems, &node{kind: nodeText, text: part, src: s.src})
			}
		}
		return list, nil
	}
	return &node{kind: nodeText, text: s.text, src: s.src}, nil
}

// child finds or makes a table or array under a key; nil when something else
// stands there.
func (n *node) child(name string, kind nodeKind, src Source) *node {
	if n == nil || n.kind != nodeTable {
		return nil
	}
	c := n.keys[name]
	if c == nil {
		c = newTable(src, span{})
		c.kind = kind
		n.put(name, c)
	}
	if c.kind != kind {
		return nil
	}
	return c
}

// element finds a table of an array, or makes the next one.
func (n *node) element(index, name string, src Source) (*node, error) {
	i, err := strconv.Atoi(index)
	if err != nil || i < 0 {
		return nil, fmt.Errorf("%w: %s is a list; write %s.0 or %s.1", errUnknownKey, name, name, name)
	}
	if n == nil {
		return nil, nil
	}
	if i > len(n.elems) {
		return nil, fmt.Errorf("there are only %d %s, so the next index is %d", len(n.elems), name, len(n.elems))
	}
	if i == len(n.elems) {
		n.elems = append(n.elems, newTable(src, span{}))
	}
	return n.elems[i], nil
}
