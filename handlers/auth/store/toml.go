package store

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/pelletier/go-toml/v2"

	"sluice/handlers/auth"
)

// exportFormat is that of the whole file; each key has its own.
const exportFormat = 1

// maxImport bounds what Import reads, in bytes.
const maxImport = 512 << 20

// Export writes all keys as TOML, the oldest first and the deleted ones too, as the shelf
// holds them now. Secrets are in it as they are stored: it is good under the same pepper only.
// Errors are those of w and of ctx, or wrap ErrUnavailable.
func (s *Store) Export(ctx context.Context, w io.Writer) error {
	if err := s.sync(ctx); err != nil {
		return unavailable(ctx, err)
	}
	if _, err := fmt.Fprintf(w, "# Keys of sluice. Their secrets are not in here and cannot be found from it.\nformat = %d\npepper = %q\n", exportFormat, s.o.Pepper.Fingerprint()); err != nil {
		return err
	}
	all := s.copy.ordered()
	for i := len(all) - 1; i >= 0; i-- {
		text, err := tomlOf(all[i])
		if err != nil {
			return fmt.Errorf("export key %s: %w", all[i].ID, err)
		}
		if _, err := w.Write(text); err != nil {
			return err
		}
	}
	return nil
}

// tomlOf is the table of one key.
func tomlOf(k *Key) ([]byte, error) {
	text, err := k.encode()
	if err != nil {
		return nil, err
	}
	var table map[string]any
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber()
	if err := d.Decode(&table); err != nil {
		return nil, err
	}
	var out bytes.Buffer
	out.WriteByte('\n')
	e := toml.NewEncoder(&out)
	e.SetIndentTables(false)
	err = e.Encode(map[string]any{"keys": []any{plain(table)}})
	return out.Bytes(), err
}

// plain turns numbers of JSON into those of TOML. Amounts of dollars keep their value: they
// have few enough digits for a float64. What is null has no value in TOML and is left out.
func plain(v any) any {
	switch v := v.(type) {
	case json.Number:
		if n, err := v.Int64(); err == nil {
			return n
		}
		f, _ := v.Float64()
		return f
	case []any:
		out := make([]any, 0, len(v))
		for _, one := range v {
			if one != nil {
				out = append(out, plain(one))
			}
		}
		return out
	case map[string]any:
		out := make(map[string]any, len(v))
		for name, one := range v {
			if one != nil {
				out[name] = plain(one)
			}
		}
		return out
	default:
		return v
	}
}

// Imported is what Import did.
type Imported struct {
	Counts
	Changed []auth.KeyID // those that were created or replaced
}

// Counts are of the keys of a file.
type Counts struct {
	Created, Replaced int
	Same              int // that were there as they are in the file
	Kept              int // that were there otherwise and were left so
}

// Import takes in what Export wrote. Keys that are there already are replaced if replace is
// set and they differ, deleted ones never: their version goes on. Nothing is written unless
// all keys are good. Errors are ErrPepper, ErrFull, one that names what is wrong with the
// file, those of ctx, or wrap ErrUnavailable: then some keys may have been written, and Import may
// be called again.
func (s *Store) Import(ctx context.Context, r io.Reader, replace bool) (done Imported, err error) {
	keys, err := s.readExport(r)
	if err != nil {
		return done, err
	}
	if err := s.sync(ctx); err != nil {
		return done, unavailable(ctx, err)
	}
	var edits []edit
	for _, k := range keys {
		was := s.Lookup(k.ID)
		switch {
		case was == nil:
			done.Created++
		case sameKey(was, k):
			done.Same++
			continue
		case !replace || !was.Deleted.IsZero():
			done.Kept++
			continue
		default:
			done.Replaced++
			k.Version = was.Version + 1
		}
		e, err := s.importEdit(k, was)
		if err != nil {
			return Imported{}, fmt.Errorf("key %s: %w", k.ID, err)
		}
		edits, done.Changed = append(edits, e), append(done.Changed, k.ID)
	}
	if s.copy.count.Load()+int64(done.Created) > int64(s.o.MaxKeys) {
		return Imported{}, ErrFull
	}
	return done, s.writeAll(ctx, edits)
}

func (s *Store) importEdit(k, was *Key) (edit, error) {
	e := edit{id: k.ID, is: k.Version}
	if was != nil {
		e.was = was.Version
	}
	var err error
	e.text, _, err = s.seal(k)
	return e, err
}

// sameKey compares all but the version.
func sameKey(a, b *Key) bool {
	c := b.clone()
	c.Version = a.Version
	x, err := a.encode()
	y, err2 := c.encode()
	return err == nil && err2 == nil && bytes.Equal(x, y)
}

// readExport reads and checks a file.
func (s *Store) readExport(r io.Reader) ([]*Key, error) {
	var file struct {
		Format int              `toml:"format"`
		Pepper string           `toml:"pepper"`
		Keys   []map[string]any `toml:"keys"`
	}
	text, err := io.ReadAll(io.LimitReader(r, maxImport+1))
	if err != nil {
		return nil, err
	}
	if len(text) > maxImport {
		return nil, fmt.Errorf("the file has more than %d MiB", maxImport>>20)
	}
	if err := toml.Unmarshal(text, &file); err != nil {
		return nil, fmt.Errorf("the file is no TOML of keys: %w", err)
	}
	switch {
	case file.Format != exportFormat:
		return nil, fmt.Errorf("format = %d is not one that this version reads; want %d", file.Format, exportFormat)
	case file.Pepper != s.o.Pepper.Fingerprint():
		return nil, fmt.Errorf("%w: the file is for %q", ErrPepper, file.Pepper)
	}
	keys := make([]*Key, len(file.Keys))
	seen := make(map[auth.KeyID]bool, len(file.Keys))
	for i, table := range file.Keys {
		if keys[i], err = keyOf(table); err != nil {
			return nil, fmt.Errorf("keys[%d]: %w", i, err)
		}
		if seen[keys[i].ID] {
			return nil, fmt.Errorf("keys[%d]: %s stands in the file twice", i, keys[i].ID)
		}
		seen[keys[i].ID] = true
	}
	return keys, nil
}

// keyOf reads the table of one key.
func keyOf(table map[string]any) (*Key, error) {
	text, err := json.Marshal(exact(table))
	if err != nil {
		return nil, err
	}
	k, err := decode(text)
	switch {
	case err != nil:
		return nil, err
	case k.newer != nil:
		return nil, ErrNewer
	case k.Deleted.IsZero():
		return k, k.Check()
	}
	return k, nil
}

// exact writes floats without an exponent.
func exact(v any) any {
	switch v := v.(type) {
	case float64:
		text := strconv.FormatFloat(v, 'f', -1, 64)
		if strings.ContainsAny(text, "IN") { // Inf and NaN, which JSON has not
			return text
		}
		return json.Number(text)
	case []any:
		for i := range v {
			v[i] = exact(v[i])
		}
	case map[string]any:
		for name := range v {
			v[name] = exact(v[name])
		}
	}
	return v
}

// writeAll does many edits. Those that conflict are told as one error.
func (s *Store) writeAll(ctx context.Context, edits []edit) error {
	conflicts := 0
	for from := 0; from < len(edits); from += editsAtOnce {
		some := edits[from:min(from+editsAtOnce, len(edits))]
		for i, err := range s.shelf.write(ctx, some) {
			switch {
			case errors.Is(err, ErrConflict):
				conflicts++
				continue
			case err != nil:
				return unavailable(ctx, err)
			}
			k, err := decode(some[i].text)
			if err != nil {
				return err
			}
			s.apply(k, sumOf(some[i].text), false)
		}
	}
	if conflicts > 0 {
		return fmt.Errorf("%w: %d keys", ErrConflict, conflicts)
	}
	return nil
}
