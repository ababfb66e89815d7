//go:build race

package providertest

// stride thins the places at which transcripts are split and cut where the race
// detector makes each play ten times as long. Places beside line ends, escapes and
// bytes beyond ASCII are never left out.
const stride = 8
