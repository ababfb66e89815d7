// Package ledger knows what calls have cost: one row per call, written once when the
// call is settled, and sums of rows by key, model and hour.
package ledger

import "time"

// Row is what one call cost. Money is in nano-dollars (1e-9 US dollars).
type Row struct {
	ID        string        `json:"id"` // of the request
	Start     time.Time     `json:"start"`
	Posted    time.Time     `json:"posted,omitzero"` // by the clock of the book that took it; set by books, not by callers
	TTFT      time.Duration `json:"ttft,omitempty"`  // to the first content; 0: none came
	Total     time.Duration `json:"total"`
	Org       string        `json:"org,omitempty"`
	Team      string        `json:"team,omitempty"`
	User      string        `json:"user,omitempty"`
	Key       string        `json:"key,omitempty"` // its name, never the secret
	Op        string        `json:"op"`
	Transport string        `json:"transport,omitempty"`
	Model     string        `json:"model"` // of an alias or a version, the model that it is of
	Target    string        `json:"target,omitempty"`
	Requests  int64         `json:"requests"` // 0 when the call was refunded
	Input     int64         `json:"input"`
	Cached    int64         `json:"cached,omitempty"` // part of Input
	Output    int64         `json:"output"`
	Reasoning int64         `json:"reasoning,omitempty"` // part of Output
	Frames    int64         `json:"frames,omitempty"`
	Estimated bool          `json:"estimated,omitempty"` // tokens were counted by the gateway, not told by the upstream
	Money     int64         `json:"money,omitempty"`
	Reserved  int64         `json:"reserved,omitempty"` // tokens
	Attempts  int64         `json:"attempts,omitempty"`
	End       string        `json:"end"` // of the table of ends; "lost" when the replica died
}
