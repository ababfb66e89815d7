package main

import (
	"maps"
	"slices"
	"strings"

	"sluice/providers"
	"sluice/providers/router"
)

// validateCapabilities checks the names of features.
func (d *decoder) validateCapabilities(path string, flags map[string]bool) {
	names := providers.FeatureNames()
	for _, name := range slices.Sorted(maps.Keys(flags)) {
		if providers.FeatureOf(name) != 0 {
			continue
		}
		hint := "; want " + strings.Join(names, ", ")
		if near := nearest(name, names); near != "" {
			hint = "; did you mean " + near + "?"
		}
		at := join(path, name)
		if n := d.nodes[at]; n != nil && !d.bad[at] {
			d.fail(n, true, at, "unknown capability%s", hint)
		}
	}
}

// override is what a table of capabilities says.
func override(flags map[string]bool) (o router.Override) {
	for name, yes := range flags {
		if yes {
			o.Yes |= providers.FeatureOf(name)
		} else {
			o.No |= providers.FeatureOf(name)
		}
	}
	return o
}
