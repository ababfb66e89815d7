package providers

import (
	"net/http"

	"sluice/streaming/jsonscan"
)

// Hints are what is known of a request besides its body, for routing. They are told by
// the caller's headers and its key, and none of them reaches an upstream.
type Hints struct {
	Session string // requests of one conversation share it; "" is unknown
	User    string // the end user, else the key
	Version string // of the model, "" is any
	Key     string // name of the key
	Org     string
	Team    string      // as "org/team"
	Groups  []string    // of the key; shared, read only
	Header  http.Header // those that rules look at, and no others; shared, read only
}

// Route is what the rules for routing have made of a request. The zero value is none.
type Route struct {
	Rule    string // that has decided
	Model   string // that is asked instead of the request's own; "" is that
	Version string // of it
	Tier    int    // 1 and the priority of the targets that are asked first; 0 is no preference
	Shadow  string // the model that gets a copy; "" is none
}

// hint notes what a member of the body tells; one that is no string tells nothing.
func (r *Request) hint(name string, value []byte) {
	text, _ := jsonscan.Unquote(value)
	if name == "user" {
		r.Hints.User = text
	} else {
		r.Hints.Session = text
	}
}
