// Package streaming knows what a stream is and nothing else: events and the
// batches they come in, the relay that pumps a stream into a sink, the frames of
// server-sent events, and what is known of an answer while it runs. It knows
// neither providers nor clients.
package streaming
