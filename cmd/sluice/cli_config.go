package main

import (
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"

	"github.com/spf13/cobra"
)

func (a *app) checkCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "check-config [FILE]",
		Aliases: []string{"validate"},
		Short:   "Check the configuration and tell everything that is wrong with it",
		Long: `Check the configuration as serve would read it: the file, the environment and
flags. All problems are told at once, each with its place. Nothing is started.

Exit codes: 0 valid, 2 invalid.`,
		Example: "  sluice check-config\n  sluice check-config --strict /etc/sluice/config.toml",
		GroupID: "config",
		Args:    cobra.MaximumNArgs(1),
		ValidArgsFunction: cobra.FixedCompletions([]string{"toml"},
			cobra.ShellCompDirectiveFilterFileExt),
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 1 {
				if a.configPath != "" {
					return errors.New("name the file once, as FILE or with --config")
				}
				a.configPath = args[0]
			}
			cfg, warnings, err := a.loadConfig(cmd)
			if err != nil {
				return err
			}
			a.warn(warnings)
			name := cfg.File()
			if name == "" {
				name = "no file, the defaults"
			}
			fmt.Fprintf(a.stdout, "%s: valid (%s, %s, %s)\n", name, count(len(cfg.Upstreams), "upstream"),
				count(len(cfg.Models), "model name"), count(len(cfg.Keys), "key"))
			return nil
		},
	}
}

func count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

func (a *app) configCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "config",
		Short:   "Print the configuration in force, or write a documented file to start from",
		GroupID: "config",
		Args:    cobra.NoArgs,
		RunE:    func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(a.configPrintCommand(), a.configInitCommand(), a.configReloadCommand())
	return cmd
}

func (a *app) configPrintCommand() *cobra.Command {
	var defaults, effective, running, asJSON bool
	d := &deskFlags{}
	cmd := &cobra.Command{
		Use:   "print",
		Short: "Print the configuration in force, each value with its source",
		Long: `Print the configuration in force, each value with its source: default, the place
in the file, the environment variable, or the flag. Secrets are shown as ***.

With --running it is what a gateway has in force, and who has set what over its file.`,
		Example: "  sluice config print\n  SLUICE_LOG__LEVEL=debug sluice config print --json\n  sluice config print --defaults\n  sluice config print --running",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if defaults {
				return a.printDefaults(asJSON)
			}
			if running || d.url != "" {
				return a.printRunning(cmd, d, asJSON)
			}
			cfg, warnings, err := a.loadConfig(cmd)
			if err != nil {
				return err
			}
			a.warn(warnings)
			return a.printEffective(cfg, asJSON)
		},
	}
	cmd.Flags().BoolVar(&defaults, "defaults", false, "print the defaults instead, with their documentation")
	cmd.Flags().BoolVar(&effective, "effective", false, "print what is in force (the default)")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON, {value, source} for each key")
	cmd.Flags().BoolVar(&running, "running", false, "print what the gateway that runs has in force")
	d.add(cmd)
	cmd.MarkFlagsMutuallyExclusive("defaults", "effective")
	cmd.MarkFlagsMutuallyExclusive("defaults", "running")
	return cmd
}

// add adds the flags that say which gateway is meant.
func (f *deskFlags) add(cmd *cobra.Command) {
	cmd.Flags().StringVar(&f.url, "admin-url", "", "`URL` of the admin listener of a gateway (default: of the one that runs here)")
	cmd.Flags().StringVar(&f.token, "admin-token", "", "admin `token` for it (default: $"+envAdminToken+")")
}

func (a *app) printRunning(cmd *cobra.Command, f *deskFlags, asJSON bool) error {
	if asJSON {
		return a.adminCall(cmd, f, http.MethodGet, "/config", "", "", nil)
	}
	return a.adminCall(cmd, f, http.MethodGet, "/config?format=toml", "", "", nil)
}

func (a *app) configReloadCommand() *cobra.Command {
	d := &deskFlags{}
	cmd := &cobra.Command{
		Use:   "reload",
		Short: "Have a gateway that runs read its configuration again",
		Long: `Have a gateway that runs read its configuration again, as SIGHUP does, and tell what has
changed and what needs a restart. A file with a mistake changes nothing.

The gateway is the one that runs over data.dir of the same configuration, or the one at
--admin-url. Exit codes: 0 in force, 1 not, 2 wrong usage or an invalid configuration.`,
		Example: "  sluice check-config && sluice config reload",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.adminCall(cmd, d, http.MethodPost, "/config/reload", "", "", nil)
		},
	}
	d.add(cmd)
	return cmd
}

func (a *app) printDefaults(asJSON bool) error {
	if asJSON {
		return a.printEffective(defaultConfig(), true)
	}
	return a.print(defaultFileText())
}

func (a *app) printEffective(cfg *Config, asJSON bool) error {
	if !asJSON {
		return a.print(cfg.EffectiveText())
	}
	text, err := cfg.EffectiveJSON()
	if err != nil {
		return &exitError{exitFailure, err}
	}
	return a.print(string(text))
}

func (a *app) print(text string) error {
	if _, err := fmt.Fprint(a.stdout, text); err != nil {
		return &exitError{exitFailure, err}
	}
	return nil
}

func (a *app) configInitCommand() *cobra.Command {
	var force bool
	cmd := &cobra.Command{
		Use:   "init [PATH]",
		Short: "Write the documented default file, to ./config.toml unless named",
		Long: `Write the documented default file: every key at its default, and examples for
upstreams, keys and model names. "-" writes to the terminal.`,
		Example: "  sluice config init\n  sluice config init /etc/sluice/config.toml",
		Args:    cobra.MaximumNArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			path := defaultFile
			if len(args) == 1 {
				path = args[0]
			}
			if path == "-" {
				return a.print(defaultFileText())
			}
			if err := writeNew(path, defaultFileText(), force); err != nil {
				return &exitError{exitFailure, err}
			}
			fmt.Fprintf(a.stderr, "wrote %s; next: sluice check-config %s\n", path, path)
			return nil
		},
	}
	cmd.Flags().BoolVar(&force, "force", false, "overwrite a file that exists")
	return cmd
}

// writeNew writes a file that only its owner may read, since keys may come to
// stand in it.
func writeNew(path, text string, force bool) error {
	flags := os.O_WRONLY | os.O_CREATE | os.O_EXCL
	if force {
		flags = os.O_WRONLY | os.O_CREATE | os.O_TRUNC
	}
	f, err := os.OpenFile(path, flags, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("%s exists already; --force overwrites it", path)
	}
	if err != nil {
		return fmt.Errorf("write the default configuration: %w", err)
	}
	_, err = f.WriteString(text)
	if err = errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("write the default configuration: %w", err)
	}
	return nil
}
