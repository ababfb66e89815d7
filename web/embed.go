// Package web knows the browser: the files that pages load, as ES modules that run
// as they stand. It knows nothing of the gateway's insides.
package web

import (
	"embed"
	"io/fs"
)

//go:embed static
var files embed.FS

// Static are the files that are served below /static/. They are the same for every
// caller and hold no secret.
func Static() fs.FS {
	static, err := fs.Sub(files, "static")
	if err != nil {
		panic(err) // the name is no path: impossible, as it is a constant
	}
	return static
}
