package main

import (
	"bufio"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"sluice/handlers/auth"
)

func (a *app) adminCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "admin", Short: "Use the admin API of a gateway, and prepare who may", GroupID: "config", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(a.hashPasswordCommand())
	cmd.AddCommand(a.adminCallCommands()...)
	return cmd
}

func (a *app) hashPasswordCommand() *cobra.Command {
	var generate bool
	cmd := &cobra.Command{
		Use:   "hash-password",
		Short: "Print the Argon2id hash of a password, for admin.password_hash",
		Long:  "Read a password from the first line of standard input and print its Argon2id hash.\nOn a terminal it is asked for twice and not shown.",
		Example: `  sluice admin hash-password
  printf '%s\n' "$PASSWORD" | sluice admin hash-password > secrets/admin.hash
  sluice admin hash-password --generate > secrets/admin.hash   # the password goes to standard error`,
		Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			password, err := a.readPassword(generate)
			if err != nil {
				return &exitError{exitFailure, err}
			}
			hash, err := auth.HashPassword(password)
			if err != nil {
				return &exitError{exitUsage, err}
			}
			if generate {
				fmt.Fprintf(a.stderr, "password: %s\n", password)
			}
			fmt.Fprintln(a.stdout, hash)
			return nil
		},
	}
	cmd.Flags().BoolVar(&generate, "generate", false, "make up a password")
	return cmd
}

func (a *app) readPassword(generate bool) (string, error) {
	if generate {
		return rand.Text(), nil
	}
	in := bufio.NewReader(io.LimitReader(a.stdin, auth.MaxPassword+2))
	terminal, ok := a.stdin.(*os.File)
	if !ok || !isTerminal(terminal) {
		return passwordLine(in)
	}
	show, err := hideInput(terminal)
	if err != nil {
		return "", fmt.Errorf("the terminal would show the password: %w; give it by a pipe", err)
	}
	defer show()
	fmt.Fprint(a.stderr, "Password: ")
	first, err := passwordLine(in)
	if err != nil {
		return "", err
	}
	fmt.Fprint(a.stderr, "\nAgain: ")
	second, err := passwordLine(bufio.NewReader(io.LimitReader(io.MultiReader(in, a.stdin), auth.MaxPassword+2)))
	fmt.Fprintln(a.stderr)
	if err == nil && first != second {
		err = errors.New("the two passwords differ")
	}
	return first, err
}

// passwordLine reads one line without its end.
func passwordLine(in *bufio.Reader) (string, error) {
	line, err := in.ReadString('\n')
	if err != nil && (!errors.Is(err, io.EOF) || line == "") {
		return "", errors.New("a password is expected on standard input")
	}
	return strings.TrimSuffix(strings.TrimSuffix(line, "\n"), "\r"), nil
}
