package main

import (
	"errors"
	"fmt"
	"strings"
)

// expand replaces ${VAR}, ${VAR:-default} and ${VAR:?message} in a string
// value, and $$ by one dollar; any other dollar stands for itself. A variable
// that is empty counts as not set in the last two forms. What a variable
// brings is not expanded again. used tells the names that were looked up.
func expand(text string, lookup func(string) (string, bool)) (out string, used []string, err error) {
	var b strings.Builder
	for {
		before, after, found := strings.Cut(text, "$")
		b.WriteString(before)
		switch {
		case !found:
			return b.String(), used, nil
		case strings.HasPrefix(after, "$"):
			b.WriteByte('$')
			text = after[1:]
		case strings.HasPrefix(after, "{"):
			inner, rest, closed := strings.Cut(after[1:], "}")
			if !closed {
				return "", used, errors.New("${ without its }; write $$ for a dollar sign")
			}
			name, value, err := expandOne(inner, lookup)
			used = append(used, name)
			if err != nil {
				return "", used, err
			}
			b.WriteString(value)
			text = rest
		default:
			b.WriteByte('$')
			text = after
		}
	}
}

// expandOne gives the value of what stands between the braces.
func expandOne(inner string, lookup func(string) (string, bool)) (name, value string, err error) {
	name, rest, _ := strings.Cut(inner, ":")
	if !isVariable(name) || rest == "" && strings.Contains(inner, ":") {
		return name, "", errors.New("want ${VAR}, ${VAR:-default} or ${VAR:?message}; write $$ for a dollar sign")
	}
	value, set := lookup(name)
	switch {
	case rest == "":
		if !set {
			return name, "", fmt.Errorf("environment variable %s is not set; ${%s:-} if it may be empty", name, name)
		}
		return name, value, nil
	case strings.HasPrefix(rest, "-"):
		if value == "" {
			value = rest[1:]
		}
		if strings.Contains(value, "${") && value == rest[1:] {
			return name, "", errors.New("a default cannot hold another ${...}")
		}
		return name, value, nil
	case strings.HasPrefix(rest, "?"):
		if value == "" {
			msg := strings.TrimSpace(rest[1:])
			if msg == "" {
				msg = "it is required"
			}
			return name, "", fmt.Errorf("environment variable %s is not set: %s", name, msg)
		}
		return name, value, nil
	}
	return name, "", errors.New("want ${VAR}, ${VAR:-default} or ${VAR:?message}; write $$ for a dollar sign")
}

// dependsOnEnv tells whether expand would look at the environment.
func dependsOnEnv(text string) bool {
	return strings.Contains(strings.ReplaceAll(text, "$$", ""), "${")
}

func isVariable(name string) bool {
	for i, c := range name {
		letter := c == '_' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z'
		if !letter && (i == 0 || c < '0' || c > '9') {
			return false
		}
	}
	return name != ""
}
