package admin

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"strings"

	"sluice/handlers/auth"
	"sluice/handlers/auth/store"
)

const tomlType = "application/toml"

func (k *Keys) export(c *call) error {
	if err := k.ready(); err != nil {
		return err
	}
	var out bytes.Buffer
	if err := k.Store.Export(c.r.Context(), &out); err != nil {
		return keyFault(err)
	}
	c.changed("keys", nil, nil)
	c.w.Header().Set("Content-Disposition", `attachment; filename="sluice-keys.toml"`)
	c.status, c.kind, c.body = http.StatusOK, tomlType, out.Bytes()
	return nil
}

// importLimit bounds a file of keys, in bytes.
const importLimit = 256 << 20

// load imports what export wrote.
func (k *Keys) load(c *call) error {
	if err := k.ready(); err != nil {
		return err
	}
	replace, err := c.flag("replace")
	if err != nil {
		return err
	}
	if kind, _, _ := strings.Cut(c.r.Header.Get("Content-Type"), ";"); kind != tomlType {
		return &fault{status: http.StatusUnsupportedMediaType, code: "unsupported_media_type", message: "Send Content-Type: " + tomlType + "."}
	}
	text, err := io.ReadAll(http.MaxBytesReader(c.w, c.r.Body, importLimit))
	if tooLarge := (*http.MaxBytesError)(nil); errors.As(err, &tooLarge) {
		return &fault{status: http.StatusRequestEntityTooLarge, code: "request_too_large", message: "The file is larger than 256 MiB."}
	}
	if err != nil {
		return badField("", "The body did not come whole.")
	}
	done, err := k.Store.Import(c.r.Context(), bytes.NewReader(text), replace)
	if err != nil {
		return importFault(err)
	}
	counts := importJSON{done.Created, done.Replaced, done.Same, done.Kept}
	c.changed("keys", nil, importedJSON{counts, done.Changed[:min(len(done.Changed), importsNamed)], len(done.Changed) > importsNamed})
	return c.reply(http.StatusOK, counts)
}

type importJSON struct {
	Created  int `json:"created"`
	Replaced int `json:"replaced"`
	Same     int `json:"same"`
	Kept     int `json:"kept"`
}

// importsNamed is how many keys the audit log names of one import.
const importsNamed = 500

type importedJSON struct {
	importJSON
	Keys []auth.KeyID `json:"keys"` // that were created or replaced
	More bool         `json:"more,omitempty"`
}

// importFault is what is wrong with a file, unless it is the store.
func importFault(err error) error {
	for _, known := range []error{store.ErrConflict, store.ErrFull, store.ErrUnavailable, context.Canceled, context.DeadlineExceeded} {
		if errors.Is(err, known) {
			return keyFault(err)
		}
	}
	return badField("", "%s.", err)
}
