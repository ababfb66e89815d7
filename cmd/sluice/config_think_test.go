package main

import (
	"reflect"
	"testing"
)

// TestThinkDefault: a block of thoughts is told apart by default, whatever kind of
// upstream a model has; a kind that gets the key gets its default.
func TestThinkDefault(t *testing.T) {
	t.Parallel()
	found := map[string]string{}
	var look func(path string, v reflect.Value)
	defaults := func(v reflect.Value) reflect.Value {
		v.Addr().Interface().(interface{ setDefaults() }).setDefaults()
		return v
	}
	look = func(path string, v reflect.Value) {
		for i := range v.NumField() {
			field := v.Type().Field(i)
			at := path + "." + field.Tag.Get("toml")
			switch {
			case field.Tag.Get("toml") == "":
			case field.Tag.Get("toml") == "think":
				found[at] = v.Field(i).String()
			case field.Type.Kind() == reflect.Struct:
				look(at, v.Field(i))
			case field.Type.Kind() == reflect.Slice && field.Type.Elem().Kind() == reflect.Struct:
				look(at, defaults(reflect.New(field.Type.Elem()).Elem()))
			}
		}
	}
	look("upstreams", defaults(reflect.ValueOf(new(Upstream)).Elem()))
	for _, at := range []string{"upstreams.openai.think", "upstreams.mii.think", "upstreams.ollama.think", "upstreams.tgi.think", "upstreams.kserve.models.think"} {
		if _, ok := found[at]; !ok {
			t.Errorf("%s is missing", at)
		}
	}
	for at, value := range found {
		if value != "split" {
			t.Errorf("%s is %q by default", at, value)
		}
	}
}
