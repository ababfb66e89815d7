package discover

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
	"time"
)

// File is a list in a file: one address a line, or a JSON array of addresses or of objects
// {"address", "weight", "priority", "drained"}. Of a line what stands behind # is a comment.
type File struct{ Path string }

const (
	// lookAtFile is how often a file is read: most are short, and network file systems tell of
	// no change.
	lookAtFile = time.Second
	maxFile    = 1 << 20
)

// Watch implements Source. An empty file is an empty list.
func (f File) Watch(ctx context.Context, tell func([]Member, error)) {
	Poll{lookAtFile, 10 * time.Second, func(context.Context) ([]Member, error) { return f.read() }}.Watch(ctx, tell)
}

func (f File) read() ([]Member, error) {
	file, err := os.Open(f.Path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	text, err := io.ReadAll(io.LimitReader(file, maxFile+1))
	if err != nil {
		return nil, err
	}
	if len(text) > maxFile {
		return nil, fmt.Errorf("%s is larger than 1 MiB", f.Path)
	}
	all, err := parseFile(text)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", f.Path, err)
	}
	return all, nil
}

// entry is a member as lists have it: an address, or an object.
type entry struct {
	Address  string `json:"address"`
	Weight   int    `json:"weight"`
	Priority int    `json:"priority"`
	Drained  bool   `json:"drained"`
}

// UnmarshalJSON implements json.Unmarshaler.
func (e *entry) UnmarshalJSON(b []byte) error {
	if b[0] == '"' {
		return json.Unmarshal(b, &e.Address)
	}
	type plain entry
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	return d.Decode((*plain)(e))
}

func parseFile(text []byte) (all []Member, err error) {
	text = bytes.TrimPrefix(text, []byte("\xef\xbb\xbf"))
	if trimmed := bytes.TrimSpace(text); len(trimmed) > 0 && trimmed[0] == '[' {
		var entries []entry
		if err := json.Unmarshal(trimmed, &entries); err != nil {
			return nil, err
		}
		for _, e := range entries {
			all = append(all, Member(e))
		}
		return tidy(all)
	}
	for line := range strings.Lines(string(text)) {
		line, _, _ = strings.Cut(line, "#")
		if line = strings.TrimSpace(line); line != "" {
			all = append(all, Member{Address: line})
		}
	}
	return tidy(all)
}
