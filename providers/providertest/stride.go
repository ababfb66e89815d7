//go:build !race

package providertest

// stride thins the places at which transcripts are split and cut. Without the race
// detector every byte is one.
const stride = 1

const heapSlack = 1
