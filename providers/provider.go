// Package providers knows what is asked of an upstream and how an upstream fails:
// the Request that every adapter gets, the Error that every adapter gives, and the
// Provider between them. It knows no wire protocol and no client.
package providers

import (
	"context"

	"sluice/streaming"
)

// Provider turns a request into a stream of events. The stream dials when it is
// ranged over, ends its upstream's work when ranging stops or ctx ends, and fails
// with an *Error. A router is a Provider too.
type Provider interface {
	Stream(ctx context.Context, req *Request, p *streaming.Progress) streaming.Stream
}

// Model is one entry of an upstream's model list. Raw is the entry as the upstream
// sent it, so that fields nobody here knows survive.
type Model struct {
	ID      string
	Created int64 // unix seconds
	OwnedBy string
	Raw     []byte
	// Capabilities are for readers of a catalog; Listers leave them empty.
	Capabilities Capabilities
}

// Lister is a Provider that can say which models its upstream has.
type Lister interface {
	Models(ctx context.Context) ([]Model, error)
}
