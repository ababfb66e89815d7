package handlers

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"io/fs"
	"net/http"
	"path"
	"strings"
	"time"

	"github.com/labstack/echo/v4"

	"sluice/web"
)

// asset is a file for browsers, with what its headers say of it.
type asset struct {
	body      []byte
	kind, tag string
}

// assetTypes are the types of files by extension; those of the system differ from
// machine to machine.
var assetTypes = map[string]string{
	".css": "text/css; charset=utf-8", ".html": "text/html; charset=utf-8", ".ico": "image/x-icon", ".js": "text/javascript; charset=utf-8",
	".json": "application/json", ".png": "image/png", ".svg": "image/svg+xml", ".txt": "text/plain; charset=utf-8",
}

// loadAssets reads all files of fsys by their path.
func loadAssets(fsys fs.FS) map[string]asset {
	assets := map[string]asset{}
	err := fs.WalkDir(fsys, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		body, err := fs.ReadFile(fsys, name)
		if err != nil {
			return err
		}
		kind, ok := assetTypes[path.Ext(name)]
		if !ok {
			kind = "application/octet-stream"
		}
		sum := sha256.Sum256(body)
		assets[name] = asset{body: body, kind: kind, tag: `"` + hex.EncodeToString(sum[:12]) + `"`}
		return nil
	})
	if err != nil {
		panic(err) // the files are part of the binary
	}
	return assets
}

// staticPath is where the files for browsers stand.
const staticPath = "/static/"

// static serves the browser's client to anybody: pages load it before they have a
// key, and pages of other origins need the permission of CORS as for the API. A copy
// is asked after each time, so that client and gateway are of one version.
func static() echo.HandlerFunc {
	assets := loadAssets(web.Static())
	return func(c echo.Context) error {
		a, ok := assets[strings.TrimPrefix(c.Request().URL.Path, staticPath)]
		if !ok {
			return echo.ErrNotFound
		}
		h := c.Response().Header()
		h.Set("Content-Type", a.kind)
		h.Set("Etag", a.tag)
		h.Set("Cache-Control", "no-cache")
		h.Set("X-Content-Type-Options", "nosniff")
		http.ServeContent(c.Response(), c.Request(), "", time.Time{}, bytes.NewReader(a.body))
		return nil
	}
}
