package gemini

import (
	"container/list"
	"sync"
)

// memory keeps the signature of a function call until the caller comes back with the
// function's result: models from version 3 on refuse a call without it, and OpenAI's
// messages have no place for it that all clients keep. It goes by the id of the call.
// What is not found here (another replica, a restart, its oldest entries gone) is
// replaced by the word with which the API lets calls of strangers pass.
type memory struct {
	most int // bytes

	mu    sync.Mutex
	size  int
	order *list.List // of *kept, oldest first
	calls map[string]*list.Element
}

type kept struct {
	call, model, signature string
}

// keptOverhead is about what an entry costs beside its text.
const keptOverhead = 256

func (k *kept) size() int { return keptOverhead + len(k.call) + len(k.model) + len(k.signature) }

func newMemory(most int) *memory {
	return &memory{most: most, order: list.New(), calls: map[string]*list.Element{}}
}

func (m *memory) keep(call, model, signature string) {
	k := &kept{call: call, model: model, signature: signature}
	if signature == "" || k.size() > m.most {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, known := m.calls[call]; known {
		return
	}
	m.calls[call] = m.order.PushBack(k)
	for m.size += k.size(); m.size > m.most; {
		oldest := m.order.Remove(m.order.Front()).(*kept)
		delete(m.calls, oldest.call)
		m.size -= oldest.size()
	}
}

// recall returns the signature of a call; "" when it is not known.
func (m *memory) recall(call, model string) string {
	m.mu.Lock()
	defer m.mu.Unlock()
	e := m.calls[call]
	if e == nil {
		return ""
	}
	k := e.Value.(*kept)
	if k.model != model {
		return ""
	}
	m.order.MoveToBack(e)
	return k.signature
}
