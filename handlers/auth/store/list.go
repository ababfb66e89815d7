package store

import (
	"context"
	"errors"
	"sort"
	"strconv"
	"strings"
	"time"

	"sluice/handlers/auth"
)

// Filter says which keys List is to show. The zero value is all that are not deleted.
type Filter struct {
	Org, Team, User string // "" is any
	// Text is part of a name or the beginning of an id, in any case; "" is any.
	Text    string
	Deleted bool // show those that are deleted too
	// Limit is for how many there is room in a page; 0 means 100, at most 1,000.
	Limit int
	// After is Page.Next of the page before; "" begins.
	After string
}

// Page is a part of a list.
type Page struct {
	Keys []*Key
	Next string // where the list goes on; "" at its end
}

// ErrCursor means a Filter.After that no Page.Next was.
var ErrCursor = errors.New("the list cannot go on there: begin it again")

const (
	pageOf      = 100
	maxPage     = 1000
	cursorParts = "."
)

// List shows keys, the newest first, as the shelf holds them now, or as the copy does when the
// shelf cannot be reached (see State). Errors are ErrCursor and those of ctx.
func (s *Store) List(ctx context.Context, f Filter) (Page, error) {
	at, id, err := readCursor(f.After)
	if err != nil {
		return Page{}, err
	}
	if err := s.sync(ctx); err != nil && ctx.Err() != nil {
		return Page{}, ctx.Err()
	}
	if f.Limit <= 0 {
		f.Limit = pageOf
	}
	f.Limit, f.Text = min(f.Limit, maxPage), strings.ToLower(f.Text)
	all := s.copy.ordered()
	from := 0
	if f.After != "" {
		from = sort.Search(len(all), func(i int) bool { return place(all[i].Created, all[i].ID, at, id) > 0 })
	}
	var page Page
	for _, k := range all[from:] {
		if !f.shows(k) {
			continue
		}
		if len(page.Keys) == f.Limit {
			last := page.Keys[f.Limit-1]
			page.Next = strconv.FormatInt(last.Created.UnixMilli(), 36) + cursorParts + last.ID.String()
			break
		}
		page.Keys = append(page.Keys, k)
	}
	s.fillUsed(ctx, page.Keys)
	return page, nil
}

func (f *Filter) shows(k *Key) bool {
	return (f.Deleted || k.Deleted.IsZero()) &&
		(f.Org == "" || f.Org == k.Org) && (f.Team == "" || f.Team == k.Team) && (f.User == "" || f.User == k.User) &&
		(f.Text == "" || strings.HasPrefix(k.ID.String(), f.Text) || strings.Contains(strings.ToLower(k.Name), f.Text))
}

func readCursor(text string) (at time.Time, id auth.KeyID, err error) {
	if text == "" {
		return time.Time{}, id, nil
	}
	when, name, _ := strings.Cut(text, cursorParts)
	ms, err := strconv.ParseInt(when, 36, 64)
	if err == nil {
		id, err = auth.ParseKeyID(name)
	}
	if err != nil {
		return time.Time{}, id, ErrCursor
	}
	return time.UnixMilli(ms), id, nil
}

// Get is the key as the shelf holds it now, or as the copy does when the shelf cannot be
// reached; deleted ones too. Errors are ErrUnknown and those of ctx.
func (s *Store) Get(ctx context.Context, id auth.KeyID) (*Key, error) {
	if err := s.sync(ctx); err != nil && ctx.Err() != nil {
		return nil, ctx.Err()
	}
	k := s.Lookup(id)
	if k == nil {
		return nil, ErrUnknown
	}
	keys := []*Key{k}
	s.fillUsed(ctx, keys)
	return keys[0], nil
}

// fillUsed replaces keys that were used by such that tell when, as far as is known.
func (s *Store) fillUsed(ctx context.Context, keys []*Key) {
	if len(keys) == 0 {
		return
	}
	ids := make([]auth.KeyID, len(keys))
	for i, k := range keys {
		ids[i] = k.ID
	}
	used, err := s.attic.touched(ctx, ids)
	if err != nil {
		used = make([]int64, len(keys)) // what is known here is shown
	}
	for i, k := range keys {
		if e := s.copy.get(k.ID); e != nil {
			used[i] = max(used[i], e.used.Load())
		}
		if used[i] > 0 {
			c := *k
			c.LastUsed = time.Unix(used[i]*60, 0).UTC()
			keys[i] = &c
		}
	}
}
