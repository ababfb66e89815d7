package deltas

import (
	"encoding/json"
	"fmt"
	"testing"

	"sluice/streaming"
	"sluice/streaming/jsonscan"
)

func TestBatch(t *testing.T) {
	var b Batch
	for range 2 {
		b.Reset()
		b.Add(streaming.Event{Kind: streaming.Meta})
		b.AddText(streaming.Text, 1, []byte(`"a\n\u00e9"`))
		for _, nothing := range []string{`""`, `null`, ``, `7`, `[1]`} {
			b.AddText(streaming.Text, 0, []byte(nothing))
		}
		b.AddText(streaming.Reasoning, 0, []byte(`"b"`))
		b.Add(streaming.Event{Kind: streaming.Stop, Stop: "stop"})
		got := ""
		for _, ev := range b.Events() {
			got += fmt.Sprintf("%d/%d/%q/%s ", ev.Kind, ev.Index, ev.Text, ev.Stop)
		}
		if want := `1/0/""/ 2/1/"a\né"/ 3/0/"b"/ 5/0/""/stop `; got != want || b.Len() != 4 {
			t.Errorf("got %s, want %s", got, want)
		}
	}
}

// Texts outlive the batch they came in.
func TestTextsAreKept(t *testing.T) {
	var b Batch
	b.AddText(streaming.Text, 0, []byte(`"first"`))
	first := b.Events()[0].Text
	b.Reset()
	b.AddText(streaming.Text, 0, []byte(`"SECOND"`))
	if b.Events(); first != "first" {
		t.Errorf("the text became %q", first)
	}
}

// However many texts a read brings, they cost one allocation.
func TestAllocations(t *testing.T) {
	var b Batch
	fill := func() {
		b.Reset()
		for range 50 {
			b.AddText(streaming.Text, 0, []byte(`" word\n"`))
		}
		b.Events()
	}
	fill()
	if n := testing.AllocsPerRun(100, fill); n > 1 {
		t.Errorf("%v allocations", n)
	}
}

// FuzzAppendUnquoted holds decoding against encoding/json.
func FuzzAppendUnquoted(f *testing.F) {
	for _, s := range []string{`"a"`, `"\"\\\/\b\f\n\r\t"`, `"\u00e9\u4E2d\ud83d\ude42"`, `"\ud83d"`, `"\ud83dx\ude42\ud83d\ud83d\ude42"`, `"日本🚀"`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, v []byte) {
		c := jsonscan.Cursor{B: v}
		if c.Peek() != '"' {
			return
		}
		span := c.Skip()
		if c.Bad {
			return
		}
		var want string
		if err := json.Unmarshal(span.Of(v), &want); err != nil {
			t.Fatal(err)
		}
		if got := string(AppendUnquoted(nil, span.Of(v))); got != want {
			t.Errorf("%s is %q, want %q", span.Of(v), got, want)
		}
	})
}

func BenchmarkAddText(b *testing.B) {
	for name, v := range map[string]string{"plain": `" word"`, "escapes": `"a\nb \u003ctag\u003e"`} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			var batch Batch
			for b.Loop() {
				batch.Reset()
				batch.AddText(streaming.Text, 0, []byte(v))
				batch.Events()
			}
		})
	}
}
