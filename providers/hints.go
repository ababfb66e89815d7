package providers

import "sluice/streaming/jsonscan"

// Hints are what is known of a request besides its body, for routing. They are told by
// the caller's headers and its key, and none of them reaches an upstream.
type Hints struct {
	Session string   // requests of one conversation share it; "" is unknown
	User    string   // the end user, else the key
	Version string   // of the model, "" is any
	Key     string   // name of the key
	Team    string   // as "org/team"
	Groups  []string // of the key; shared, read only
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
