package kit

import (
	"fmt"
	"testing"
)

func TestMemoryIsBounded(t *testing.T) {
	const each = KeptOverhead + 2 + 1 + 100
	m := NewMemory[string](10 * each)
	for i := range 20 {
		m.Keep(fmt.Sprintf("%02d", i), "m", "what", 100)
		if m.Recall("00", "m") != "what" {
			t.Fatalf("what is asked for goes before what is not, at %d", i)
		}
	}
	if m.size != m.most || len(m.calls) != 10 || m.order.Len() != 10 || m.Recall("05", "m") != "" || m.Recall("19", "m") == "" {
		t.Errorf("size %d, %d calls, %d in order", m.size, len(m.calls), m.order.Len())
	}
	m.Keep("19", "m", "other", 1)
	m.Keep("", "m", "nameless", 1)
	m.Keep("large", "m", "large", 100*each)
	if len(m.calls) != 10 || m.Recall("19", "m") != "what" || m.Recall("19", "n") != "" {
		t.Errorf("%d calls, %q, %q", len(m.calls), m.Recall("19", "m"), m.Recall("19", "n"))
	}
	none := NewMemory[[]byte](0)
	if none.Keep("x", "m", []byte("x"), 1); none.Recall("x", "m") != nil {
		t.Error("an empty memory recalls")
	}
}
