package kit

import "sluice/streaming"

// Ends says where the choices of an answer end, beside where the server ends them. The
// rule is one for all who build an answer from a model's text: a mark by which models end
// a turn ends a choice wherever it stands, in its thoughts too; the caller's sequences are
// looked for in the answer alone, for callers do not know what a model thinks.
type Ends struct {
	Marks []string // of the model's format
	Stops []string // the caller's
	Think *Think   // nil leaves thoughts in the text, where the caller's sequences count
	// Choices and Usage are those of Stops.
	Choices int
	Usage   func() *streaming.UsageData
}

// Filter returns src without what stands behind the ends, and its thoughts told apart.
func (e Ends) Filter(src streaming.Stream) streaming.Stream {
	src = Stops{Sequences: e.Marks, Choices: e.Choices, Usage: e.Usage}.Filter(src)
	if e.Think != nil {
		src = e.Think.Filter(src)
	}
	return Stops{Sequences: e.Stops, Choices: e.Choices, Usage: e.Usage}.Filter(src)
}
