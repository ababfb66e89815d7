package main

import (
	"fmt"
	"io"
	"strconv"

	"sluice/providers/providertest/wall"
)

const (
	maxTokens = 10_000_000
	maxText   = 256 << 20
)

// offline runs the commands that need no server.
func offline(args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	switch {
	case args[0] == "text" && len(args) == 3:
		n, err := strconv.Atoi(args[2])
		if err != nil || n < 0 || n > maxTokens {
			_, _ = fmt.Fprintf(stderr, "wall: text: N must be a number from 0 to %d\n", maxTokens)
			return 2
		}
		_, _ = io.WriteString(stdout, wall.Text(args[1], n))
		return 0
	case args[0] == "verify" && len(args) == 2:
		text, err := io.ReadAll(io.LimitReader(stdin, maxText))
		if err != nil {
			_, _ = fmt.Fprintln(stderr, "wall: reading the text:", err)
			return 1
		}
		n, err := wall.Verify(args[1], string(text))
		if err != nil {
			_, _ = fmt.Fprintln(stderr, "wall:", err)
			return 1
		}
		_, _ = fmt.Fprintln(stdout, n, "tokens")
		return 0
	}
	_, _ = fmt.Fprintf(stderr, "wall: unknown command %q; see wall --help\n", args[0])
	return 2
}
