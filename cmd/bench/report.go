package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"time"

	"sluice/cmd/bench/stat"
)

// errGate is a run that ended well but outside the limits.
var errGate = errors.New("a limit is exceeded or was not measured")

// report prints the tables, writes the JSON file, and with --gate fails when a
// limit is not kept.
func (b *benchRun) report(w io.Writer) error {
	host := machine()
	fmt.Fprintf(w, "# Relay benchmark\n\n%s.\n", host)
	if b.truncation == 0 {
		fmt.Fprintf(w, "%d round(s), window %v. Cells: median (range) over rounds; ratios are formed within a round.\n", b.options.rounds, b.scale.window)
		if b.quick {
			fmt.Fprintln(w, "\n**Quick run: it shows that everything works; its figures measure nothing.**")
		}
		for _, m := range metrics {
			if b.asked(m.test) {
				b.table(w, m)
			}
		}
	}
	b.damageTable(w)
	var verdicts []verdict
	if slices.Contains(b.targets, sluice) {
		verdicts = b.judge()
		gateTable(w, verdicts)
	}
	if n := b.busiest(); n > quiet {
		b.note("other processes kept up to %.2f cores busy during a test: such figures are not to be trusted", n)
	}
	for _, n := range b.notes {
		fmt.Fprintf(w, "\nNote: %s\n", n)
	}
	if err := b.writeJSON(host, verdicts); err != nil {
		return err
	}
	passed := len(verdicts) > 0 && !slices.ContainsFunc(verdicts, func(v verdict) bool { return !v.Passed })
	if b.gate && !passed {
		return errGate
	}
	return nil
}

// quiet is how many cores others may keep busy before the report warns. The
// kernel's own housekeeping stays below it.
const quiet = 0.1

// busiest is the most that others kept busy during any test, in cores.
func (b *benchRun) busiest() (most float64) {
	for _, c := range b.cells {
		most = max(most, c.Result.Foreign)
	}
	return most
}

func (b *benchRun) table(w io.Writer, m metric) {
	if slices.Contains(overWS, m.test) {
		b.wsTable(w, m)
		return
	}
	if m.test == quota {
		b.quotaTable(w, m)
		return
	}
	fmt.Fprintf(w, "\n## %s, %s\n\n| target | %s | x nginx | x ReverseProxy |\n|---|---:|---:|---:|\n", m.title, m.unit, m.unit)
	for _, target := range b.targets {
		if !takes(target, m.test) {
			continue
		}
		values := b.values(m, target)
		fmt.Fprintf(w, "| %s | %s | %s | %s |\n", target, spread(stat.Summarize(values)),
			b.against(m, target, nginx), b.against(m, target, reverseProxy))
	}
	if m.test == ttft && !m.added {
		fmt.Fprintf(w, "| %s | %s | | |\n", direct, spread(stat.Summarize(b.values(m, direct))))
	}
}

// wsTable is a table of what only Sluice has, beside what it needs over SSE.
func (b *benchRun) wsTable(w io.Writer, m metric) {
	fmt.Fprintf(w, "\n## %s, %s\n\n| target | %s | x SSE |\n|---|---:|---:|\n| %s | %s | %s |\n", m.title, m.unit, m.unit,
		sluice, spread(stat.Summarize(b.values(m, sluice))), spread(stat.Summarize(b.sseRatios(m))))
}

// quotaTable compares Sluice with limits to Sluice without.
func (b *benchRun) quotaTable(w io.Writer, m metric) {
	fmt.Fprintf(w, "\n## %s, %s\n\n| target | %s | x without limits |\n|---|---:|---:|\n", m.title, m.unit, m.unit)
	for _, target := range b.targets {
		if takes(target, quota) {
			fmt.Fprintf(w, "| %s | %s | %s |\n", target, spread(stat.Summarize(b.values(m, target))), b.against(m, target, sluice))
		}
	}
}

func (b *benchRun) against(m metric, target, other string) string {
	if target == other {
		return "1"
	}
	return spread(stat.Summarize(b.ratios(m, target, other)))
}

func (b *benchRun) damageTable(w io.Writer) {
	fmt.Fprint(w, "\n## Damage over all tests, answers\n\n| target | checked | truncated | wrong | failed | left behind |\n|---|---:|---:|---:|---:|---:|\n")
	for _, target := range b.targets {
		d := b.damage(target)
		fmt.Fprintf(w, "| %s | %d | %d | %d | %d | %d |\n", target, d.Streams, d.Truncated, d.Wrong, d.Failed, d.LeftBehind)
	}
	for _, c := range b.cells {
		if r := c.Result; len(r.Samples) > 0 {
			fmt.Fprintf(w, "\n%s, %s, round %d: %s\n", c.Target, c.Test, c.Round+1, strings.Join(r.Samples, "; "))
		}
	}
}

func gateTable(w io.Writer, verdicts []verdict) {
	fmt.Fprintf(w, "\n## Limits (tolerance %.0f %%)\n\n| limit | at most | measured | |\n|---|---:|---:|---|\n", 100*(tolerance-1))
	for _, v := range verdicts {
		word := "FAILED"
		if v.Passed {
			word = "kept"
		}
		fmt.Fprintf(w, "| %s | %s | %s | %s |\n", v.Name, number(v.Limit), v.Text, word)
	}
}

func (b *benchRun) writeJSON(host string, verdicts []verdict) error {
	if b.jsonOut == "" {
		return nil
	}
	type row struct {
		Metric, Unit, Target string
		Rounds               []float64
		Median, Min, Max     float64
	}
	var rows []row
	for _, m := range metrics {
		for _, t := range slices.Concat(b.targets, []string{direct}) {
			values := b.values(m, t)
			if s := stat.Summarize(values); s.N > 0 && b.truncation == 0 {
				values = slices.DeleteFunc(values, math.IsNaN)
				rows = append(rows, row{m.key, m.unit, t, values, s.Median, s.Min, s.Max})
			}
		}
	}
	out, err := json.MarshalIndent(map[string]any{
		"time": time.Now().UTC().Format(time.RFC3339), "machine": host, "quick": b.quick, "rounds": b.options.rounds,
		"window_seconds": b.scale.window.Seconds(), "metrics": rows, "limits": verdicts, "cells": b.cells, "notes": b.notes,
	}, "", " ")
	if err != nil {
		return fmt.Errorf("encode the results: %w", err)
	}
	return os.WriteFile(b.jsonOut, append(out, '\n'), 0o644)
}

// machine describes what the figures depend on.
func machine() string {
	parts := []string{fmt.Sprintf("%d cores", runtime.NumCPU()), runtime.Version(), runtime.GOOS + "/" + runtime.GOARCH}
	if bin, err := nginxPath(); err == nil {
		if out, err := exec.Command(bin, "-v").CombinedOutput(); err == nil {
			parts = append(parts, strings.TrimSpace(strings.TrimPrefix(string(out), "nginx version: ")))
		}
	}
	if text, err := os.ReadFile("/proc/loadavg"); err == nil {
		if f := strings.Fields(string(text)); len(f) > 0 {
			parts = append(parts, "load average at the end "+f[0])
		}
	}
	return strings.Join(parts, ", ")
}

func spread(s stat.Summary) string {
	switch s.N {
	case 0:
		return "-"
	case 1:
		return number(s.Median)
	}
	return fmt.Sprintf("%s (%s-%s)", number(s.Median), number(s.Min), number(s.Max))
}

// number prints three significant digits, and whole numbers from 100 on.
func number(v float64) string {
	switch a := math.Abs(v); {
	case math.IsNaN(v) || math.IsInf(v, 0):
		return "-"
	case a >= 100:
		return fmt.Sprintf("%.0f", v)
	case a >= 10:
		return fmt.Sprintf("%.1f", v)
	}
	return fmt.Sprintf("%.2f", v)
}
