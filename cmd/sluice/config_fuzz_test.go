package main

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// FuzzConfig loads anything as a file, an environment variable and a flag: the
// loader never panics, every problem has a place, and no marked secret shows.
func FuzzConfig(f *testing.F) {
	files, err := filepath.Glob("testdata/config/errors/*.toml")
	if err != nil || len(files) == 0 {
		f.Fatalf("no seeds: %v", err)
	}
	for _, file := range append(files, "testdata/config/effective.toml") {
		data, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(string(data), "SERVER__LISTEN", ":8080", "retry.tries=2")
	}
	f.Add("", "UPSTREAMS__0__HEADERS__X", "y", "upstreams={}")
	f.Add("a.b.c = [[1],{x=2}]\n[a.d]\n[[e]]\n[e.f]", "KEYS__0", "{}", "keys[0].key=x")
	f.Add("[server]\r\nlisten=\"\\u00e9${\"\r\n\xef\xbb\xbf", "MODELS", "[{}]", "models.0.targets.0=")
	f.Add("key = 'k'\n[[keys]]\nkey = \"\"\"k\nhidden\"\"\"\nx = \"hidden\" ", "CORS__ORIGINS", "[", "=")
	f.Fuzz(func(t *testing.T, file, envName, envValue, set string) {
		o := loadOptions{Path: "fuzz.toml", Environ: []string{envPrefix + envName + "=" + envValue, "X=y"}, Kinds: []string{"openai"}, Strict: true}
		if s, err := flagSetting(set); err == nil {
			o.Flags = []setting{s}
		}
		cfg, _, err := loadDocument(&document{name: "fuzz.toml", data: []byte(file)}, o)
		var ce *ConfigError
		switch {
		case err == nil:
			if cfg.EffectiveText() == "" {
				t.Error("nothing to print")
			}
			if _, err := cfg.EffectiveJSON(); err != nil {
				t.Error(err)
			}
		case !errors.As(err, &ce) || len(ce.Problems) == 0:
			t.Fatalf("not a ConfigError: %v", err)
		default:
			for _, p := range ce.Problems {
				inFile := p.Source.Origin == FromFile && p.Source.Line > 0 && p.Source.Column > 0 && p.excerpt != ""
				outside := p.Source.Origin >= FromEnv && p.Source.Name != ""
				if p.Msg == "" || !inFile && !outside {
					t.Errorf("no place: %+v", p)
				}
			}
		}
	})
}

// FuzzExcerpt puts a secret where it belongs into documents that are broken
// around it, and never finds it in what is said.
func FuzzExcerpt(f *testing.F) {
	for _, s := range []string{"", "\"", "\n[", "= 3", "\n\"\"\"", "#", "\\", "\nname = ", "\x00", "\xff", "]"} {
		f.Add(s, s)
	}
	const secret = "sk-hidden-XYZ"
	f.Fuzz(func(t *testing.T, before, after string) {
		if strings.Contains(before+after, "sk-hidden") || len(before)+len(after) > 1<<12 {
			t.Skip()
		}
		// before must not turn the line of the key into something else.
		if strings.ContainsAny(before, "\"'") || strings.Contains(before, "[") {
			t.Skip()
		}
		text := before + "\n[[keys]]\nname = \"a\"\nkey = \"" + secret + "\"" + after
		_, _, err := loadDocument(&document{name: "fuzz.toml", data: []byte(text)}, loadOptions{Kinds: []string{"openai"}})
		if err != nil && strings.Contains(err.Error(), "hidden") {
			t.Errorf("the secret is shown:\n%s", err)
		}
	})
}
