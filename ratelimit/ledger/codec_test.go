package ledger

import (
	"bytes"
	"encoding/json"
	"reflect"
	"strings"
	"testing"
	"time"
)

func TestEncode(t *testing.T) {
	long := strings.Repeat("é", 200) // 400 bytes; cut between characters
	rows := map[string][2]Row{
		"every field": {testRow(1), testRow(1)},
		"empty":       {{}, {}},
		"long names":  {{ID: long, Model: "x" + long}, {ID: long[:256], Model: "x" + long[:254]}},
		"too large":   {{Money: 1 << 60, Input: -1 << 60}, {Money: maxAmount, Input: -maxAmount}},
	}
	for name, row := range rows {
		got, err := decode(Encode([]byte("before"), &row[0])[len("before"):])
		want := row[1]
		want.Start = time.UnixMicro(want.Start.UnixMicro()).UTC()
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %v\n got %+v\nwant %+v", name, err, got, want)
		}
	}
}

// TestDecodeCut cuts a row everywhere: no part of it is taken for a whole one.
func TestDecodeCut(t *testing.T) {
	row := testRow(1)
	data := Encode(nil, &row)
	for n := range data {
		if got, err := decode(data[:n]); err == nil {
			t.Fatalf("%d of %d bytes are %+v", n, len(data), got)
		}
	}
	if got, err := decode(append(data, "a later version's field"...)); err != nil || !reflect.DeepEqual(got, row) {
		t.Errorf("with a later field: %v, %+v", err, got)
	}
	data[0]++
	if _, err := decode(data); err == nil {
		t.Error("another version is read")
	}
}

func TestRowAsJSON(t *testing.T) {
	row := testRow(1)
	row.Posted = row.Start.Add(time.Second)
	text, err := json.Marshal(row)
	var back Row
	if err := json.Unmarshal(text, &back); err != nil || !reflect.DeepEqual(back, row) {
		t.Errorf("%v: %s", err, text)
	}
	if err != nil || strings.Contains(string(text), "0001-01-01") {
		t.Errorf("%v: %s", err, text)
	}
}

func FuzzDecodeRow(f *testing.F) {
	row := testRow(1)
	f.Add(Encode(nil, &row))
	f.Add(Encode(nil, &Row{}))
	f.Fuzz(func(t *testing.T, data []byte) {
		row, err := decode(data)
		_, _ = readHead(data)
		if err != nil {
			return
		}
		again := Encode(nil, &row)
		n, org := row.name(), appendText(nil, row.Org)
		if head, err := readHead(again); err != nil || string(head.id) != row.ID || !bytes.Equal(head.org, org) ||
			!bytes.Equal(head.name, n.append(nil)) || !bytes.Equal(head.name[:head.short], appendTexts(nil, n.key, n.user, n.team)) {
			t.Fatalf("%v, the head of %+v is %+v", err, row, head)
		}
		back, err := decode(again)
		if err != nil {
			t.Fatalf("%v after a second time: %+v", err, row)
		}
		if third := Encode(nil, &back); !bytes.Equal(again, third) {
			t.Fatalf("%+v is encoded in two ways", row)
		}
	})
}

func FuzzDecodeName(f *testing.F) {
	row := testRow(1)
	n := row.name()
	f.Add(string(n.append(nil)))
	f.Add("")
	f.Fuzz(func(t *testing.T, data string) {
		_, _ = decodeName(data)
		_, _, _ = decodeSumKey(data)
		if n, err := readCursor(data); err == nil && data != "" {
			if back, err := readCursor(writeCursor(n)); err != nil || back != n {
				t.Errorf("cursor %q", data)
			}
		}
		if s, err := parseCursor(data); err == nil && data != "" {
			if back, err := parseCursor(s.cursor()); err != nil || back != s {
				t.Errorf("cursor %q", data)
			}
		}
	})
}

func TestSlot(t *testing.T) {
	for org, want := range map[string]string{
		"":              "s:{o:}",
		"acme-1_2.x@y":  "s:{o:acme-1_2.x@y}",
		"}:b:x{o:other": "s:{o:%7D%3Ab%3Ax%7Bo%3Aother}",
		"%7D":           "s:{o:%257D}",
		"é":             "s:{o:%C3%A9}",
	} {
		if got := Slot("s:", org); got != want {
			t.Errorf("%q: %s, want %s", org, got, want)
		}
	}
}

func TestParseGroup(t *testing.T) {
	for g := ByOrg; g <= ByDay; g++ {
		if got, err := ParseGroup(g.String()); err != nil || got != g {
			t.Errorf("%s: %v, %v", g, got, err)
		}
	}
	if _, err := ParseGroup("minute"); err == nil {
		t.Error("minutes are no group")
	}
}
