package admin

import (
	"encoding/json"
	"errors"
	"io"
	"mime"
	"net/http"
	"net/url"
	"reflect"
	"slices"
	"strings"

	"sluice/streaming/jsonscan"
)

// bodyLimit bounds a request, in bytes.
const bodyLimit = 1 << 20

// read takes the JSON object that the request carries. Members are known by their exact
// name; unknown ones, those given twice and values of another type are refused, each
// by its path.
func (c *call) read(into any) error {
	if kind, _, err := mime.ParseMediaType(c.r.Header.Get("Content-Type")); err != nil || kind != "application/json" {
		return &fault{status: http.StatusUnsupportedMediaType, code: "unsupported_media_type", message: "Send Content-Type: application/json."}
	}
	body, err := io.ReadAll(http.MaxBytesReader(c.w, c.r.Body, bodyLimit))
	if tooLarge := (*http.MaxBytesError)(nil); errors.As(err, &tooLarge) {
		return &fault{status: http.StatusRequestEntityTooLarge, code: "request_too_large", message: "The body is larger than 1 MiB."}
	}
	if err != nil {
		return badField("", "The body did not come whole.")
	}
	return decode(body, into)
}

func decode(body []byte, into any) error {
	k := checker{cursor: jsonscan.Cursor{B: body}}
	if k.cursor.Peek() != '{' {
		return badField("", "The body must be a JSON object.")
	}
	k.value("", reflect.TypeOf(into).Elem())
	switch {
	case k.fault != nil:
		return k.fault
	case k.cursor.Deep:
		return badField("", "The JSON is nested too deep.")
	case !k.cursor.End():
		return badField("", "The body is not valid JSON (at byte %d).", k.cursor.I)
	}
	err := json.Unmarshal(body, into)
	if wrong := (*json.UnmarshalTypeError)(nil); errors.As(err, &wrong) {
		return badField(wrong.Field, "%s cannot be a %s.", named(wrong.Field), wrong.Value)
	}
	if err != nil {
		return badField("", "The body cannot be read: %s.", err)
	}
	return nil
}

func named(field string) string {
	if field == "" {
		return "The body"
	}
	return field
}

// checker holds JSON against a Go type, member by member, which encoding/json does not: it
// takes members of any case, and the last of two.
type checker struct {
	cursor jsonscan.Cursor
	fault  error
}

var (
	rawType  = reflect.TypeFor[json.RawMessage]()
	ownTexts = reflect.TypeFor[json.Unmarshaler]()
)

func (k *checker) value(path string, t reflect.Type) {
	for t != nil && t.Kind() == reflect.Pointer && !t.Implements(ownTexts) {
		t = t.Elem()
	}
	if t == rawType || t != nil && (t.Implements(ownTexts) || reflect.PointerTo(t).Implements(ownTexts)) {
		t = nil
	}
	switch k.cursor.Peek() {
	case '{':
		k.object(path, t)
	case '[':
		var elem reflect.Type
		if t != nil && (t.Kind() == reflect.Slice || t.Kind() == reflect.Array) {
			elem = t.Elem()
		}
		for k.cursor.Array(); k.cursor.Elem(); {
			k.value(path, elem)
		}
	default:
		k.cursor.Skip()
	}
}

// object walks one object; t is nil when nothing is known of its members.
func (k *checker) object(path string, t reflect.Type) {
	seen := map[string]bool{}
	for k.cursor.Object(); k.cursor.Key(); {
		name, _ := jsonscan.Unquote(slices.Concat([]byte{'"'}, k.cursor.Name, []byte{'"'}))
		at := strings.TrimPrefix(path+"."+name, ".")
		if seen[name] {
			k.refuse(at, "%s is given twice.")
		}
		seen[name] = true
		var member reflect.Type
		switch {
		case t == nil:
		case t.Kind() == reflect.Map:
			member = t.Elem()
		case t.Kind() == reflect.Struct:
			if member = memberOf(t, name); member == nil {
				k.refuse(at, "There is no field %s here.")
			}
		}
		k.value(at, member)
	}
}

func (k *checker) refuse(at, format string) {
	if k.fault == nil {
		k.fault = badField(at, format, at)
	}
}

// memberOf finds the type of a member; embedded structs stand for their members.
func memberOf(t reflect.Type, name string) reflect.Type {
	for _, f := range reflect.VisibleFields(t) {
		tag, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		if f.IsExported() && tag == name && tag != "-" && tag != "" {
			return f.Type
		}
	}
	return nil
}

// queryOf reads the query strictly: net/url drops what it cannot read.
func queryOf(r *http.Request) (url.Values, error) {
	if strings.Contains(r.URL.RawQuery, ";") {
		return nil, errors.New("a semicolon separates nothing")
	}
	return url.ParseQuery(r.URL.RawQuery)
}
