package dialect

import (
	"encoding/json"
	"strings"
	"testing"

	"sluice/streaming"
)

// The chunk with the finish reason says that an answer was continued, and no other does.
func TestContinued(t *testing.T) {
	for name, encoder := range map[string]func(streaming.Framing, Options) streaming.Encoder{"chat": NewChat, "completions": NewCompletions} {
		for _, usage := range []bool{false, true} {
			e := encoder(streaming.SSEFraming, Options{ID: "id", Created: 1, Model: "m", WantsUsage: usage})
			var out []byte
			for _, ev := range []streaming.Event{
				{Kind: streaming.Text, Text: "a"},
				{Kind: streaming.Stop, Stop: "length", Meta: &streaming.MetaData{Continued: true}},
				{Kind: streaming.Usage, Index: -1, Usage: &streaming.UsageData{Prompt: 1, Completion: 1}},
			} {
				var err error
				if out, err = e.Append(out, &ev); err != nil {
					t.Fatal(err)
				}
			}
			out = e.AppendEnd(out, nil)
			told := 0
			for frame := range strings.SplitSeq(strings.TrimSpace(string(out)), "\n\n") {
				data := strings.TrimPrefix(frame, "data: ")
				if data == "[DONE]" {
					continue
				}
				var c struct {
					Choices []struct {
						Stop *string `json:"finish_reason"`
					}
					Sluice *struct{ Continued bool } `json:"x_sluice"`
				}
				if err := json.Unmarshal([]byte(data), &c); err != nil {
					t.Fatalf("%s: %v in %s", name, err, data)
				}
				if end := len(c.Choices) > 0 && c.Choices[0].Stop != nil; end != (c.Sluice != nil && c.Sluice.Continued) {
					t.Errorf("%s: %s", name, data)
				} else if end {
					told++
				}
			}
			if told != 1 {
				t.Errorf("%s: told %d times: %s", name, told, out)
			}
		}
	}
}
