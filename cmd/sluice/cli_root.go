package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"
)

// Exit codes. A command that a signal ends answers 128 and the number of the
// signal, as shells do.
const (
	exitOK          = 0
	exitFailure     = 1   // it did not start, or failed while it ran
	exitUsage       = 2   // wrong usage or an invalid configuration
	exitDrained     = 3   // the drain timed out and streams were cut
	exitInterrupted = 130 // Ctrl-C in a client command
)

// serveOptions are what serve needs beside the configuration.
type serveOptions struct {
	Version  string       // of the binary
	Warnings []string     // about the configuration, to be logged once logging works
	Load     *loadOptions // where the configuration comes from, for who reads it again
}

// exitError carries an exit code; err is nil when all has been said.
type exitError struct {
	code int
	err  error
}

func (e *exitError) Error() string {
	if e.err == nil {
		return fmt.Sprintf("exit code %d", e.code)
	}
	return e.err.Error()
}

func (e *exitError) Unwrap() error { return e.err }

// app is one run of the command line; nothing in it outlives the run.
type app struct {
	environ        []string
	stdin          io.Reader
	stdout, stderr io.Writer
	serve          func(context.Context, *Config, serveOptions, io.Writer) int

	configPath string
	sets       []string
	logLevel   string
	logFormat  string
	listen     string
	demo       bool
	strict     bool
}

// run executes one command line and gives its exit code. It touches no
// process globals, so tests run it as often as they like.
func run(ctx context.Context, args, environ []string, stdin io.Reader, stdout, stderr io.Writer) int {
	a := &app{environ: environ, stdin: stdin, stdout: stdout, stderr: stderr, serve: serve}
	return a.run(ctx, args)
}

func (a *app) run(ctx context.Context, args []string) int {
	root := a.rootCommand()
	root.SetArgs(append([]string{}, args...)) // nil would mean os.Args
	root.SetIn(a.stdin)
	root.SetOut(a.stdout)
	root.SetErr(a.stderr)
	cmd, err := root.ExecuteContextC(ctx)
	if err == nil {
		return exitOK
	}
	var exit *exitError
	if !errors.As(err, &exit) {
		fmt.Fprintf(a.stderr, "sluice: %s\nSee '%s --help'.\n", strings.TrimSpace(err.Error()), cmd.CommandPath())
		return exitUsage
	}
	if exit.err != nil {
		fmt.Fprintf(a.stderr, "sluice: %s\n", exit.err)
	}
	return exit.code
}

const rootLong = `Sluice stands between clients that speak the OpenAI API and the servers that hold
the models. It relays tokens as they come, keeps silent streams alive, retries
what can still be retried, and never passes off a cut answer as a whole one.

Without a sub-command it serves. It needs no configuration to be tried:

  sluice                          # http://127.0.0.1:8080/v1, demo models, prints a key
  sluice chat --key KEY 'Hello'   # in another terminal, with that key

One file does the rest:

  sluice config init && $EDITOR config.toml && sluice check-config`

func (a *app) rootCommand() *cobra.Command {
	root := &cobra.Command{
		Use:           "sluice",
		Short:         "A streaming-first gateway for language models",
		Long:          rootLong,
		Version:       readBuild().String(),
		SilenceErrors: true,
		SilenceUsage:  true,
		RunE:          a.runServe,
	}
	root.SetVersionTemplate("sluice {{.Version}}\n")
	root.Flags().Bool("version", false, "print the version and exit")
	a.addConfigFlags(root)
	root.AddGroup(
		&cobra.Group{ID: "serve", Title: "Serve:"},
		&cobra.Group{ID: "config", Title: "Configure:"},
		&cobra.Group{ID: "client", Title: "Try it out:"},
	)
	root.AddCommand(
		a.serveCommand(), a.healthCommand(),
		a.checkCommand(), a.configCommand(), a.routeCommand(), a.keyCommand(), a.adminCommand(),
		a.chatCommand(), a.benchCommand(),
		a.versionCommand(),
	)
	return root
}

// addConfigFlags adds the flags that say what the configuration is.
func (a *app) addConfigFlags(root *cobra.Command) {
	f := root.PersistentFlags()
	f.StringVarP(&a.configPath, "config", "c", "", "configuration `file` (default ./config.toml if it exists; or $SLUICE_CONFIG)")
	f.StringArrayVar(&a.sets, "set", nil, "override one key, as in `section.key=value` (repeatable)")
	f.StringVar(&a.listen, "listen", "", "`address` of the API (server.listen)")
	f.BoolVar(&a.demo, "demo", false, "offer the embedded demo models, or with --demo=false do not (demo.enabled)")
	f.StringVar(&a.logLevel, "log-level", "", "`level` of messages: debug, info, warn, error (log.level)")
	f.StringVar(&a.logFormat, "log-format", "", "`form` of log lines: text, json (log.format)")
	f.BoolVar(&a.strict, "strict", false, "treat unknown SLUICE_ environment variables as errors")
	complete := func(flag string, values []string, directive cobra.ShellCompDirective) {
		_ = root.RegisterFlagCompletionFunc(flag, cobra.FixedCompletions(values, directive)) // fails only for an unknown flag
	}
	complete("log-level", []string{"debug", "info", "warn", "error"}, cobra.ShellCompDirectiveNoFileComp)
	complete("log-format", []string{"text", "json"}, cobra.ShellCompDirectiveNoFileComp)
	var keys []string
	for _, path := range keyPaths() {
		keys = append(keys, path+"=")
	}
	complete("set", keys, cobra.ShellCompDirectiveNoFileComp|cobra.ShellCompDirectiveNoSpace)
	_ = root.MarkPersistentFlagFilename("config", "toml")
}

// loadOptions say where the configuration is, by the flags of a command.
func (a *app) loadOptions(cmd *cobra.Command) (loadOptions, error) {
	o := loadOptions{Path: a.configPath, Environ: a.environ, Strict: a.strict, Kinds: knownKinds()}
	if o.Path == "" {
		o.Path, _ = lookupIn(a.environ)(envConfig)
	}
	for _, arg := range a.sets {
		s, err := flagSetting(arg)
		if err != nil {
			return o, &exitError{exitUsage, err}
		}
		o.Flags = append(o.Flags, s)
	}
	for _, f := range []struct{ flag, path, value string }{
		{"listen", "server.listen", a.listen},
		{"demo", "demo.enabled", fmt.Sprint(a.demo)},
		{"log-level", "log.level", a.logLevel},
		{"log-format", "log.format", a.logFormat},
	} {
		if cmd.Flags().Changed(f.flag) {
			o.Flags = append(o.Flags, setting{
				path: strings.Split(f.path, "."), text: f.value,
				src: Source{Origin: FromFlag, Name: "--" + f.flag},
			})
		}
	}
	return o, nil
}

// loadConfig reads the configuration as the flags of a command say. A problem
// with it ends the command with exitUsage.
func (a *app) loadConfig(cmd *cobra.Command) (*Config, []string, error) {
	o, err := a.loadOptions(cmd)
	if err != nil {
		return nil, nil, err
	}
	cfg, warnings, err := loadConfig(o)
	if err != nil {
		a.warn(warnings)
		fmt.Fprintln(a.stderr, err)
		return nil, nil, &exitError{code: exitUsage}
	}
	return cfg, warnings, nil
}

func (a *app) warn(warnings []string) {
	for _, w := range warnings {
		fmt.Fprintf(a.stderr, "warning: %s\n", w)
	}
}

func (a *app) serveCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "serve",
		Short:   "Serve the API (what sluice does without a sub-command)",
		Long:    "Serve the API until SIGTERM or Ctrl-C, then let running answers finish.\nA second signal cuts them short.",
		GroupID: "serve",
		Args:    cobra.NoArgs,
		RunE:    a.runServe,
	}
}

func (a *app) runServe(cmd *cobra.Command, _ []string) error {
	cfg, warnings, err := a.loadConfig(cmd)
	if err != nil {
		return err
	}
	o, err := a.loadOptions(cmd)
	if err != nil {
		return err
	}
	code := a.serve(cmd.Context(), cfg, serveOptions{Version: readBuild().String(), Warnings: warnings, Load: &o}, a.stderr)
	if code != exitOK {
		return &exitError{code: code}
	}
	return nil
}
