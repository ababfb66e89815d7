// Package wall knows how servers that speak the OpenAI API behave, well and badly. A Wall is an http.Handler that
// answers as such a server does, and breaks exactly where and how a Script says; tests of gateways and clients stand
// on it. It imports nothing of the gateway.
//
// # Choosing a script
//
// A call carries its script in the model's name, or in a tag anywhere in its body, which survives a gateway that
// renames the model:
//
//	{"model": "wall:tokens=40,delay=20ms,reset=30", ...}
//	{"content": "hello [[wall tokens=40 delay=20ms reset=30]]"}
//
// Scripts may also be registered in Go under a model name (Wall.Script), a path (Wall.ScriptPath) or as the default
// (Wall.SetDefault). The registered script is the base; the model's keys change it, then the tag's. An unknown key or
// a bad value is answered with 400 and its name. A tag [[wall@NAME ...]] speaks to the wall of that name alone, so
// that one prompt can script two upstreams of one gateway; of several tags the last one counts.
//
// Successive calls with the same script text (or the same key=NAME) are counted, for tests of retries: "fail=2:503"
// fails the first two; "2*status=503 | tokens=5" says the same at length; registered scripts take a list. Calls at
// different walls count apart.
//
// # Positions
//
// Faults happen at a position (At): after K deltas of any kind (0 is after the role chunk), "pre" instead of the
// headers, "headers" after them, "end" after the finish chunk. A K beyond the answer is refused with 400. In answers
// that are not streamed everything between headers and end happens at half of the body, and an in-stream error is a
// status 500 in the shape's words.
//
// # Truth of the content
//
// Text, reasoning and tool arguments are chains of hashes (Chain): Verify proves that a text is an exact prefix made
// of whole tokens. Choice i > 0, tool call i and the reasoning have chains of their own (Chain.Choice, Chain.Tool,
// Chain.Reasoning). Usage counts: the prompt has one token per word, an answer one per token, a tool call its
// arguments' tokens and three.
//
// # What happened
//
// Wall.Requests, Wall.Stats and Wall.Await tell what arrived, what was sent and how it ended; GET /wall/requests and
// GET /wall/stats tell people. The moment at which a leaving client is noticed is Request.Gone.
//
// Help and GET /wall/help list all keys.
package wall
