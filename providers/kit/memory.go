package kit

import (
	"container/list"
	"sync"
)

// Memory keeps what belongs to a tool call until its caller comes back with the tool's
// result: what an API wants to see again, and OpenAI's messages have no place for. It
// goes by the id of the call and by the model. What is not found (another replica, a
// restart, its oldest entries gone) is nothing that an adapter may rely on. It is safe
// for concurrent use.
type Memory[T any] struct {
	most int // bytes

	mu    sync.Mutex
	size  int
	order *list.List // of *kept[T], the longest unused first
	calls map[string]*list.Element
}

type kept[T any] struct {
	call, model string
	what        T
	size        int
}

// KeptOverhead is about what an entry costs beside its content and its names, in bytes.
const KeptOverhead = 256

// NewMemory returns a memory of so many bytes; 0 keeps nothing.
func NewMemory[T any](most int) *Memory[T] {
	return &Memory[T]{most: most, order: list.New(), calls: map[string]*list.Element{}}
}

// Keep takes ownership of what, which has so many bytes. A call without an id, one that
// is known and one that is larger than all of the memory are not kept.
func (m *Memory[T]) Keep(call, model string, what T, size int) {
	k := &kept[T]{call: call, model: model, what: what, size: KeptOverhead + len(call) + len(model) + size}
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, known := m.calls[call]; known || call == "" || k.size > m.most {
		return
	}
	m.calls[call] = m.order.PushBack(k)
	for m.size += k.size; m.size > m.most; {
		oldest := m.order.Remove(m.order.Front()).(*kept[T])
		delete(m.calls, oldest.call)
		m.size -= oldest.size
	}
}

// Recall returns what was kept of a call of this model; the zero value when there is
// nothing. It must not be changed.
func (m *Memory[T]) Recall(call, model string) (what T) {
	m.mu.Lock()
	defer m.mu.Unlock()
	e := m.calls[call]
	if e == nil {
		return what
	}
	k := e.Value.(*kept[T])
	if k.model != model {
		return what
	}
	m.order.MoveToBack(e)
	return k.what
}
