package auth

import "time"

// Role is what somebody may do at the admin API.
type Role string

// The roles. A viewer sees everything and changes nothing; who signed in with an API key
// sees that key's own figures and nothing else.
const (
	RoleAdmin  Role = "admin"
	RoleViewer Role = "viewer"
	RoleKey    Role = "key"
)

// Actor is who is asking at the admin API. The zero value is nobody.
type Actor struct {
	Name string // of the user, the token or the key
	Role Role
	// Via says how: "session" or "token".
	Via string
	// Until is when a session ends unless it is used.
	Until time.Time
	// Caller is who calls with the key behind RoleKey; otherwise its zero value.
	Caller Principal
}
