// Package task knows what the programs of this module share: tasks come as JSON
// on standard input, run side by side, and each is answered by one line of JSON.
package task

import (
	"context"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"math"
	"net/http"
	"os"
	"sync"
	"time"
)

// Task is one thing to do.
type Task struct {
	Name     string   `json:"name"`
	Op       string   `json:"op"`
	BaseURL  string   `json:"base_url"`
	APIKey   string   `json:"api_key"`
	Model    string   `json:"model"`
	Prompt   string   `json:"prompt"`
	N        int      `json:"n"`
	Tools    []string `json:"tools"`
	Input    []string `json:"input"`
	Encoding string   `json:"encoding"`

	Leave      string `json:"leave"`       // "signal", "break", or "" to stay
	LeaveAfter int    `json:"leave_after"` // pieces of text
	LeaveWhen  string `json:"leave_when"`  // or a URL that answers when it is time
	PauseMS    int    `json:"leave_pause_ms"`
}

// Report is what came of a task.
type Report struct {
	Name    string      `json:"name"`
	Text    []string    `json:"text,omitempty"`
	Finish  []string    `json:"finish,omitempty"`
	Usage   *Usage      `json:"usage,omitempty"`
	Tools   []Tool      `json:"tools,omitempty"`
	Models  []string    `json:"models,omitempty"`
	Vectors [][]float64 `json:"vectors,omitempty"`
	LeftAt  int64       `json:"left_at,omitempty"` // Unix time in ms
	Error   *Error      `json:"error,omitempty"`
}

// Usage counts tokens.
type Usage struct {
	Prompt     int64 `json:"prompt"`
	Completion int64 `json:"completion"`
	Total      int64 `json:"total"`
}

// Tool is a tool call.
type Tool struct {
	ID        string `json:"id"`
	Name      string `json:"name"`
	Arguments string `json:"arguments"`
}

// Error is what a caller can know of an error.
type Error struct {
	Kind    string `json:"kind"`
	Message string `json:"message"`
	Status  int    `json:"status"`
	Code    string `json:"code"`
	Type    string `json:"type"`
}

// Parameters is the schema of the tools' arguments.
var Parameters = map[string]any{
	"type": "object", "properties": map[string]any{"chain": map[string]any{"type": "string"}},
	"required": []string{"chain"}, "additionalProperties": false,
}

// Job is a task that runs.
type Job struct {
	Task
	Report Report

	ctx    context.Context
	cancel context.CancelFunc
	pieces int
	left   chan int64 // gets the time at which a timer left
}

// Run performs every task of the input by the function of its operation.
func Run(operations map[string]func(context.Context, *Job) error, describe func(error) *Error) {
	var tasks []Task
	if err := json.NewDecoder(os.Stdin).Decode(&tasks); err != nil {
		panic(err)
	}
	var output sync.Mutex
	var all sync.WaitGroup
	for _, t := range tasks {
		all.Go(func() {
			j := &Job{Task: t, Report: Report{Name: t.Name}, left: make(chan int64, 1)}
			j.perform(operations[t.Op], describe)
			output.Lock()
			defer output.Unlock()
			if err := json.NewEncoder(os.Stdout).Encode(j.Report); err != nil {
				panic(err)
			}
		})
	}
	all.Wait()
}

func (j *Job) perform(do func(context.Context, *Job) error, describe func(error) *Error) {
	j.ctx, j.cancel = context.WithCancel(context.Background())
	defer j.cancel()
	if j.LeaveWhen != "" {
		go j.leaveWhenTold()
	}
	if err := do(j.ctx, j); err != nil {
		j.Report.Error = describe(err)
	}
	select {
	case j.Report.LeftAt = <-j.left:
	default:
	}
}

// leaveWhenTold leaves when the upstream has been asked.
func (j *Job) leaveWhenTold() {
	if answer, err := http.Get(j.LeaveWhen); err == nil {
		_ = answer.Body.Close()
		j.leaveSoon()
	}
}

func (j *Job) leaveSoon() {
	time.AfterFunc(time.Duration(j.PauseMS)*time.Millisecond, func() {
		j.left <- time.Now().UnixMilli()
		j.cancel()
	})
}

// Text adds text of a choice. True means that the reader must close its stream now.
func (j *Job) Text(choice int, text string) bool {
	for len(j.Report.Text) <= choice {
		j.Report.Text = append(j.Report.Text, "")
	}
	j.Report.Text[choice] += text
	if text == "" {
		return false
	}
	j.pieces++
	if j.Leave == "" || j.pieces != j.LeaveAfter {
		return false
	}
	if j.Leave == "break" {
		j.left <- time.Now().UnixMilli()
		return true
	}
	j.leaveSoon()
	return false
}

// Finish notes the reason for which a choice ended, if there is one yet.
func (j *Job) Finish(choice int, reason string) {
	if reason == "" {
		return
	}
	for len(j.Report.Finish) <= choice {
		j.Report.Finish = append(j.Report.Finish, "")
	}
	j.Report.Finish[choice] = reason
}

// Tool adds a fragment of a tool call.
func (j *Job) Tool(index int, t Tool) {
	for len(j.Report.Tools) <= index {
		j.Report.Tools = append(j.Report.Tools, Tool{})
	}
	to := &j.Report.Tools[index]
	to.ID += t.ID
	to.Name += t.Name
	to.Arguments += t.Arguments
}

// Vector adds an embedding in the form that stands on the wire.
func (j *Job) Vector(raw []byte) error {
	var v []float64
	if len(raw) == 0 || raw[0] != '"' {
		err := json.Unmarshal(raw, &v)
		j.Report.Vectors = append(j.Report.Vectors, v)
		return err
	}
	var encoded string
	if err := json.Unmarshal(raw, &encoded); err != nil {
		return err
	}
	b, err := base64.StdEncoding.DecodeString(encoded)
	if err != nil || len(b)%4 != 0 {
		return fmt.Errorf("%d bytes of base64: %w", len(b), err)
	}
	for ; len(b) > 0; b = b[4:] {
		v = append(v, float64(math.Float32frombits(binary.LittleEndian.Uint32(b))))
	}
	j.Report.Vectors = append(j.Report.Vectors, v)
	return nil
}
