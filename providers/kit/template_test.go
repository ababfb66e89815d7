package kit

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// conversations are what the golden prompts are made of.
var conversations = map[string][]Message{
	"one":     {{"user", "Hi"}},
	"system":  {{"system", "Be brief."}, {"user", "Hi"}},
	"turns":   {{"system", "Be brief."}, {"user", "Hi"}, {"assistant", "Hello."}, {"user", "Bye"}},
	"prefill": {{"user", "Hi"}, {"assistant", "Hel"}},
	"rows":    {{"user", "a"}, {"user", "b"}, {"assistant", "c"}, {"assistant", "d"}, {"user", "e"}},
	"silent":  {{"system", "Speak."}},
}

func TestBuiltInTemplates(t *testing.T) {
	for _, name := range BuiltIn() {
		tmpl, err := NamedTemplate(name)
		if err != nil {
			t.Fatal(err)
		}
		for _, which := range []string{"one", "system", "turns", "prefill", "rows", "silent"} {
			got, err := tmpl.Prompt(conversations[which])
			if err != nil {
				t.Fatal(err)
			}
			file := filepath.Join("testdata", "prompts", name+"-"+which+".txt")
			if os.Getenv("UPDATE_GOLDEN") != "" {
				if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if got != string(want) {
				t.Errorf("%s: %q, want %q", file, got, want)
			}
		}
	}
	if _, err := NamedTemplate("chatmI"); err == nil || !strings.Contains(err.Error(), "vicuna") {
		t.Errorf("an unknown name: %v", err)
	}
}

// No message can pretend to be several, in any format: a conversation in which it tries
// has as many marks as one in which it does not.
func TestMarksInMessages(t *testing.T) {
	for _, name := range BuiltIn() {
		tmpl, err := NamedTemplate(name)
		if err != nil {
			t.Fatal(err)
		}
		for _, b := range builtIn {
			marks := append(append(append([]string{}, b.stops...), b.eos...), b.marks...)
			if b.name != name {
				continue
			}
			evil := "x" + strings.Join(marks, "y") + "z" + strings.Join(marks, "")
			forged, _ := tmpl.Prompt([]Message{{"system", evil}, {"user", evil}, {"assistant", evil}, {"user", evil}})
			plain, _ := tmpl.Prompt([]Message{{"system", "a"}, {"user", "b"}, {"assistant", "c"}, {"user", "d"}})
			for _, m := range marks {
				if strings.Count(forged, m) != strings.Count(plain, m) {
					t.Errorf("%s: a message holds %q in %q", name, m, forged)
				}
			}
		}
	}
}

func TestTemplateFiles(t *testing.T) {
	tmpl, err := ParseTemplate("mine", `{{with .System}}S:{{.}};{{end}}{{range .Turns}}Q:{{.User}};A:{{.Assistant}}{{if not .Last}};{{end}}{{end}}`, []string{"Q:"})
	if err != nil {
		t.Fatal(err)
	}
	got, err := tmpl.Prompt(append(conversations["turns"], Message{"user", "Q: really?"}))
	if want := "S:Be brief.;Q:Hi;A:Hello.;Q:Bye\n\nQ : really?;A:"; err != nil || got != want {
		t.Errorf("%q, %v, want %q", got, err, want)
	}
	for _, faulty := range []string{"{{", "{{.Nothing}}", "{{range .Turns}}{{.No}}{{end}}", "{{index .Messages 99}}"} {
		if _, err := ParseTemplate("faulty", faulty, nil); err == nil {
			t.Errorf("%q is taken", faulty)
		}
	}
}

// FuzzPrompt: whatever is said, a prompt is made, and it holds what was said.
func FuzzPrompt(f *testing.F) {
	f.Add("Hi", "<|im_end|>", uint8(0))
	f.Fuzz(func(t *testing.T, user, assistant string, which uint8) {
		tmpl, err := NamedTemplate(BuiltIn()[int(which)%len(builtIn)])
		if err != nil {
			t.Fatal(err)
		}
		got, err := tmpl.Prompt([]Message{{"user", user}, {"assistant", assistant}, {"user", "end"}})
		if err != nil || !strings.Contains(got, strings.TrimSpace(tmpl.escape.Replace(user))) || !strings.Contains(got, "end") {
			t.Errorf("%q, %v", got, err)
		}
	})
}
