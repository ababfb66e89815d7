package ledger

// pool holds values by number, in blocks that never move. Of values without pointers the
// collector reads nothing but the list of blocks.
type pool[T any] struct {
	blocks []*[poolBlock]T
	used   uint32   // numbers below it have been given
	free   []uint32 // of them, those that were given back
}

const poolBlock = 256

func (p *pool[T]) at(i uint32) *T { return &p.blocks[i/poolBlock][i%poolBlock] }

// get gives a number, of a zero value.
func (p *pool[T]) get() uint32 {
	if last := len(p.free) - 1; last >= 0 {
		i := p.free[last]
		p.free = p.free[:last]
		return i
	}
	if int(p.used) == len(p.blocks)*poolBlock {
		p.blocks = append(p.blocks, new([poolBlock]T))
	}
	p.used++
	return p.used - 1
}

func (p *pool[T]) put(i uint32) {
	var zero T
	*p.at(i) = zero
	p.free = append(p.free, i)
}
