package ledger

import (
	"bytes"
	"hash/maphash"
)

// names holds each name of sums and rows once, by number, for as long as somebody counts
// on it. It has no pointers into its texts, so that many names cost nothing to collect.
// The zero value is empty.
type names struct {
	seed    maphash.Seed
	heads   []uint32 // by hash: the first entry of a chain; entries are numbered from 1 in chains
	entries pool[entry]
	count   int
	texts   []byte
	live    int // bytes of texts that entries use
}

type entry struct {
	hash  uint64
	start uint32
	size  uint16
	refs  uint32
	next  uint32 // of the chain
	turn  uint32 // in which sum is the one that rows of this name count in
	sum   uint32
}

// find returns the number of a name, counted once more: each find needs a release.
func (n *names) find(text []byte) uint32 {
	if n.heads == nil {
		n.seed, n.heads = maphash.MakeSeed(), make([]uint32, 64)
	}
	h := maphash.Bytes(n.seed, text)
	for i := n.heads[h&uint64(len(n.heads)-1)]; i != 0; {
		e := n.entries.at(i - 1)
		if e.hash == h && bytes.Equal(n.text(e), text) {
			e.refs++
			return i - 1
		}
		i = e.next
	}
	return n.add(h, text)
}

func (n *names) add(h uint64, text []byte) uint32 {
	if n.count == len(n.heads) {
		n.grow()
	}
	if unused := len(n.texts) - n.live; unused > n.live && unused > minCompact {
		n.compact()
	}
	i := n.entries.get()
	head := &n.heads[h&uint64(len(n.heads)-1)]
	*n.entries.at(i) = entry{hash: h, start: uint32(len(n.texts)), size: uint16(len(text)), refs: 1, next: *head}
	*head = i + 1
	n.texts = append(n.texts, text...)
	n.live += len(text)
	n.count++
	return i
}

// minCompact is how many bytes of texts may be unused whatever is used.
const minCompact = 64 << 10

func (n *names) grow() {
	old := n.heads
	n.heads = make([]uint32, 2*len(old))
	for _, i := range old {
		for i != 0 {
			e := n.entries.at(i - 1)
			head := &n.heads[e.hash&uint64(len(n.heads)-1)]
			i, e.next, *head = e.next, *head, i
		}
	}
}

func (n *names) compact() {
	texts := make([]byte, 0, n.live+minCompact)
	for _, i := range n.heads {
		for i != 0 {
			e := n.entries.at(i - 1)
			start := len(texts)
			texts = append(texts, n.text(e)...)
			e.start, i = uint32(start), e.next
		}
	}
	n.texts = texts
}

// text is valid until the next find.
func (n *names) text(e *entry) []byte { return n.texts[e.start : int(e.start)+int(e.size)] }

func (n *names) release(i uint32) {
	e := n.entries.at(i)
	if e.refs--; e.refs > 0 {
		return
	}
	link := &n.heads[e.hash&uint64(len(n.heads)-1)]
	for *link != i+1 {
		link = &n.entries.at(*link - 1).next
	}
	*link = e.next
	n.live -= int(e.size)
	n.count--
	n.entries.put(i)
}
