package anthropic

import (
	"container/list"
	"sync"
)

// memory keeps the thinking that led to a tool call until the caller comes back with
// the tool's result. The API wants it unchanged and signed, and OpenAI's messages have
// no place for a signature. It goes by the id of the call, which the API makes up at
// random. What is not found here (another replica, a restart, its oldest entries gone)
// is left out of the request, which the API takes when it is left out as a whole.
type memory struct {
	most int // bytes

	mu    sync.Mutex
	size  int
	order *list.List // of *kept, oldest first
	calls map[string]*list.Element
}

type kept struct {
	call, model string
	blocks      []block // of thinking, in front of the call
	size        int
}

// keptOverhead is about what an entry costs beside its text.
const keptOverhead = 256

func newMemory(most int) *memory {
	return &memory{most: most, order: list.New(), calls: map[string]*list.Element{}}
}

// keep takes ownership of blocks.
func (m *memory) keep(call, model string, blocks []block) {
	k := &kept{call: call, model: model, blocks: blocks, size: keptOverhead + len(call) + len(model)}
	for i := range blocks {
		k.size += len(blocks[i].Data) + len(blocks[i].Signature)
		if blocks[i].Thinking != nil {
			k.size += len(*blocks[i].Thinking)
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, known := m.calls[call]; known || call == "" || k.size > m.most {
		return
	}
	m.calls[call] = m.order.PushBack(k)
	for m.size += k.size; m.size > m.most; {
		oldest := m.order.Remove(m.order.Front()).(*kept)
		delete(m.calls, oldest.call)
		m.size -= oldest.size
	}
}

// recall returns what the model thought before a call; nil when it is not known. The
// blocks must not be changed.
func (m *memory) recall(call, model string) []block {
	m.mu.Lock()
	defer m.mu.Unlock()
	e := m.calls[call]
	if e == nil {
		return nil
	}
	k := e.Value.(*kept)
	if k.model != model {
		return nil
	}
	m.order.MoveToBack(e)
	return k.blocks
}
