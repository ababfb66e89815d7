//go:build race

package providertest

// stride thins the places at which transcripts are split and cut where the race
// detector makes each play ten times as long. Places beside line ends, escapes and
// bytes beyond ASCII are never left out.
const stride = 8

// heapSlack widens what is held against the heap: under the race detector pools lose a
// quarter of what is put into them.
const heapSlack = 30
