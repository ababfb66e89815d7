package demo

import (
	"context"

	"sluice/providers"
)

// Capabilities implements router.Capable. What the family does not know, such as log
// probabilities, it passes over; images, tools and the routes have models of their own.
func (t target) Capabilities(context.Context, providers.Feature) providers.Capabilities {
	const text = providers.ChatRoute | providers.CompletionsRoute | providers.Choices
	can := providers.Capabilities{Kind: name, No: providers.Routes &^ (text | providers.EmbeddingsRoute)}
	switch t.model {
	case Embed:
		can.Yes = providers.EmbeddingsRoute
		can.Model = text & providers.Routes
	case Vision:
		can.Yes = text | providers.Vision
		can.Model = providers.EmbeddingsRoute
	case Tools:
		can.Yes = text | providers.Tools | providers.ToolMessages
		can.Model = providers.EmbeddingsRoute | providers.Vision
	default:
		can.Yes = text
		can.Model = providers.EmbeddingsRoute | providers.Vision
	}
	can.No |= can.Model
	return can
}
