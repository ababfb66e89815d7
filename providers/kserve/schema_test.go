package kserve

import (
	"errors"
	"math"
	"strings"
	"testing"

	"sluice/providers/kit/pixels"
	"sluice/providers/kserve/kservetest"
)

// good is a schema without fault.
func good() Model {
	return Model{
		Name:    "m",
		Inputs:  []Input{{Name: "x", Datatype: "FP32", Shape: []int64{-1, 3, 8, 6}, Source: FromImage, Layout: "NCHW"}},
		Outputs: []Output{{Name: "y", Meaning: AsClasses}},
	}
}

func TestSchemaFaults(t *testing.T) {
	for path, change := range map[string]func(*Model){
		"name":                  func(m *Model) { m.Name = "" },
		"inputs":                func(m *Model) { m.Inputs = nil },
		"outputs":               func(m *Model) { m.Outputs = nil },
		"batch":                 func(m *Model) { m.Batch = 2; m.Outputs[0].Meaning = AsText },
		"inputs[0].name":        func(m *Model) { m.Inputs[0].Name = "" },
		"inputs[1].name":        func(m *Model) { m.Inputs = append(m.Inputs, m.Inputs[0]) },
		"inputs[0].datatype":    func(m *Model) { m.Inputs[0].Datatype = "FP8" },
		"inputs[0].shape":       func(m *Model) { m.Inputs[0].Shape = []int64{3, -1, 8, 6} },
		"inputs[0].layout":      func(m *Model) { m.Inputs[0].Layout = "" },
		"inputs[0].from":        func(m *Model) { m.Inputs[0].Shape, m.Inputs[0].Source = []int64{1}, "there" },
		"inputs[0].param":       func(m *Model) { m.Inputs[0].Shape, m.Inputs[0].Source = []int64{1}, FromParam },
		"inputs[0].value":       func(m *Model) { m.Inputs[0].Source, m.Inputs[0].Value = FromValue, "1" },
		"outputs[0].name":       func(m *Model) { m.Outputs[0].Name = "" },
		"outputs[1].name":       func(m *Model) { m.Outputs = append(m.Outputs, m.Outputs[0]) },
		"outputs[0].as":         func(m *Model) { m.Outputs[0].Meaning = "what" },
		"outputs[0].activation": func(m *Model) { m.Outputs[0].Activation = "relu" },
		"outputs[0].pooling":    func(m *Model) { m.Outputs[0] = Output{Name: "y", Meaning: AsEmbedding, Pooling: "max"} },
		"outputs[0].box":        func(m *Model) { m.Outputs[0] = Output{Name: "y", Meaning: AsBoxes, Rows: "box,classes"} },
		"outputs[0].rows":       func(m *Model) { m.Outputs[0] = Output{Name: "y", Meaning: AsBoxes, Box: "xyxy"} },
		"outputs[0].scores":     func(m *Model) { m.Outputs[0] = Output{Name: "y", Meaning: AsBoxes, Box: "xyxy", Rows: "box"} },
		"outputs[0].nms": func(m *Model) {
			m.Outputs[0] = Output{Name: "y", Meaning: AsBoxes, Box: "xyxy", Rows: "box,classes", NMS: 2}
		},
	} {
		m := good()
		change(&m)
		f := new(Fault)
		if err := m.Check(); !errors.As(err, &f) || f.Path != path {
			t.Errorf("%s: %v", path, err)
		}
	}
	m := good()
	if err := m.Check(); err != nil || m.Batch != 1 || m.Outputs[0].Key != "classes" || m.Inputs[0].Picture.Width != 6 || m.Inputs[0].Picture.Height != 8 || !m.Inputs[0].Picture.Planar {
		t.Errorf("%v %+v", err, m)
	}
}

func tensorOf(k kservetest.Tensor) *tensor {
	return &tensor{name: k.Name, datatype: k.Datatype, shape: k.Shape, data: k.Raw}
}

func TestActivation(t *testing.T) {
	three := tensorOf(kservetest.Floats("y", []int64{3}, 1, 3, 2))
	for activation, c := range map[string]struct {
		best  int
		score float64
	}{"none": {1, 3}, "softmax": {1, 0.66524}, "sigmoid": {1, 0.95257}} {
		o := Output{Activation: activation}
		all, err := o.classes(three)
		if err != nil || math.Abs(all[c.best].score-c.score) > 1e-4 {
			t.Errorf("%s: %v %v", activation, all, err)
		}
	}
	o := Output{}
	for _, bad := range []string{"", "1", "a:b", "0.5:x:cat"} {
		if _, err := o.classes(tensorOf(kservetest.Strings("y", bad))); err == nil {
			t.Errorf("%q was read as a class", bad)
		}
	}
}

func TestVector(t *testing.T) {
	rows := tensorOf(kservetest.Floats("y", []int64{2, 2}, 3, 4, 1, 0))
	for name, c := range map[string]struct {
		o    Output
		want []float32
	}{
		"mean":       {Output{Pooling: "mean"}, []float32{2, 2}},
		"first":      {Output{Pooling: "first"}, []float32{3, 4}},
		"normalized": {Output{Pooling: "first", Normalize: true}, []float32{0.6, 0.8}},
	} {
		v, err := c.o.vector(rows)
		if err != nil || len(v) != 2 || math.Abs(float64(v[0]-c.want[0])) > 1e-6 || math.Abs(float64(v[1]-c.want[1])) > 1e-6 {
			t.Errorf("%s: %v %v", name, v, err)
		}
	}
	if _, err := (&Output{}).vector(rows); err == nil {
		t.Error("two vectors became one by themselves")
	}
	if _, err := (&Output{}).vector(&tensor{datatype: "FP32", data: make([]byte, 4)}); err == nil {
		t.Error("a scalar became a vector")
	}
}

// TestBoxForms: every way to write one box of a 100 x 50 image gives the same box.
func TestBoxForms(t *testing.T) {
	q := &question{model: &Model{Inputs: []Input{{Source: FromEncoded}}}}
	s := &subject{place: pixels.Placement{Width: 100, Height: 50, ScaleX: 1, ScaleY: 1}}
	score, class := tensorOf(kservetest.Floats("s", []int64{1, 2}, 0.9, 0.3)), tensorOf(kservetest.Floats("c", []int64{2}, 1, 0))
	count := tensorOf(kservetest.Floats("n", []int64{1}, 1))
	const want = `[{"label":"dog","index":1,"score":0.9,"box":[10,20,30,40]}]`
	for name, c := range map[string]struct {
		o     Output
		shape []int64
		v     []float32
		parts map[string]*tensor
	}{
		"xyxy":          {Output{Box: "xyxy", Rows: "box,score,class"}, []int64{1, 6}, []float32{10, 20, 30, 40, 0.9, 1}, nil},
		"yxyx":          {Output{Box: "yxyx", Rows: "box,score,class"}, []int64{1, 6}, []float32{20, 10, 40, 30, 0.9, 1}, nil},
		"xywh":          {Output{Box: "xywh", Rows: "box,classes"}, []int64{1, 6}, []float32{10, 20, 20, 20, 0.1, 0.9}, nil},
		"cxcywh":        {Output{Box: "cxcywh", Rows: "box,object,classes"}, []int64{1, 7}, []float32{20, 30, 20, 20, 0.9, 0.1, 1}, nil},
		"normalized":    {Output{Box: "xyxy", Rows: "box,score,class", Normalized: true}, []int64{1, 1, 6}, []float32{0.1, 0.4, 0.3, 0.8, 0.9, 1}, nil},
		"columns":       {Output{Box: "xyxy", Rows: "box,score,class", Transposed: true}, []int64{1, 6, 1}, []float32{10, 20, 30, 40, 0.9, 1}, nil},
		"in parts":      {Output{Box: "xyxy", Rows: "box", Scores: "s", Classes: "c", Count: "n"}, []int64{2, 4}, []float32{10, 20, 30, 40, 0, 0, 1, 1}, map[string]*tensor{"s": score, "c": class, "n": count}},
		"top":           {Output{Box: "xyxy", Rows: "box,score,class", Top: 1}, []int64{2, 6}, []float32{0, 0, 1, 1, 0.5, 0, 10, 20, 30, 40, 0.9, 1}, nil},
		"threshold":     {Output{Box: "xyxy", Rows: "box,score,class", Threshold: 0.6}, []int64{2, 6}, []float32{0, 0, 1, 1, 0.5, 0, 10, 20, 30, 40, 0.9, 1}, nil},
		"overlap":       {Output{Box: "xyxy", Rows: "box,score,class", NMS: 0.5}, []int64{2, 6}, []float32{11, 20, 30, 40, 0.5, 1, 10, 20, 30, 40, 0.9, 1}, nil},
		"out of bounds": {Output{Box: "xyxy", Rows: "box,score,class", Threshold: 0.6}, []int64{1, 6}, []float32{10, 20, 30, 40, 0.9, 1}, nil},
	} {
		c.o.Labels = []string{"cat", "dog"}
		got, err := q.appendBoxes(nil, &c.o, tensorOf(kservetest.Floats("y", c.shape, c.v...)), c.parts, s)
		if err != nil || string(got) != want {
			t.Errorf("%s: %s %v", name, got, err)
		}
	}
	for name, c := range map[string]struct {
		o     Output
		shape []int64
		says  string
	}{
		"one axis":    {Output{Rows: "box,classes"}, []int64{6}, "rows of numbers"},
		"narrow rows": {Output{Rows: "box,score,class"}, []int64{1, 4}, "at least 6"},
	} {
		_, err := q.appendBoxes(nil, &c.o, tensorOf(kservetest.Floats("y", c.shape, make([]float32, 6)...)), nil, s)
		if err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if got := appendCoordinate(nil, math.NaN()); string(got) != "null" {
		t.Errorf("no number is %s", got)
	}
}

func TestElements(t *testing.T) {
	for name, c := range map[string]struct{ datatype, text string }{
		"a fraction":      {"INT32", "1.5"},
		"out of range":    {"UINT8", "256"},
		"below range":     {"INT8", "-129"},
		"too large":       {"INT64", "9223372036854775808"},
		"a negative":      {"UINT64", "-1"},
		"no number":       {"INT32", "null"},
		"a string":        {"FP32", `"1"`},
		"a number":        {"BYTES", "1"},
		"an object":       {"FP32", "{}"},
		"an unknown type": {"FP8", "1"},
		"not JSON":        {"FP32", "[1,"},
	} {
		if _, err := readData(c.datatype, []byte(c.text)); err == nil {
			t.Errorf("%s: %s was read as %s", name, c.text, c.datatype)
		}
	}
	for datatype, text := range map[string]string{
		"INT64": "[9223372036854775807,-9223372036854775808]", "UINT64": "[18446744073709551615]", "FP64": "[0.1,null]", "FP32": "[0.1,-2]",
		"FP16": "[0.5,65504]", "BF16": "[1,-2]", "INT8": "[-128,127]", "UINT8": "[255]", "INT16": "[-32768]", "UINT16": "[65535]", "INT32": "[-1]", "UINT32": "[4294967295]",
		"BOOL": "[true,false]", "BYTES": `["a","","é\n"]`,
	} {
		data, err := readData(datatype, []byte(text))
		if err != nil {
			t.Errorf("%s: %v", datatype, err)
			continue
		}
		back := string(appendData(nil, &tensor{datatype: datatype, data: data}))
		again, err := readData(datatype, []byte(back))
		if err != nil || string(again) != string(data) {
			t.Errorf("%s: %s became %s, %v", datatype, text, back, err)
		}
	}
}

func TestFitShape(t *testing.T) {
	for name, c := range map[string]struct {
		datatype string
		declared []int64
		size     int64
		want     string
	}{
		"open":        {"FP32", []int64{-1, 3}, 24, "[2 3]"},
		"fixed":       {"UINT8", []int64{2, 3}, 6, "[2 3]"},
		"a string":    {"BYTES", []int64{-1, -1}, 7, "[1 1]"},
		"two strings": {"BYTES", []int64{-1, 2}, 7, ""},
		"two open":    {"FP32", []int64{-1, -1}, 24, ""},
		"not even":    {"FP32", []int64{-1, 3}, 25, ""},
		"other size":  {"FP32", []int64{2}, 4, ""},
		"no datatype": {"X", []int64{2}, 4, ""},
		"too large":   {"FP32", []int64{1 << 40, 1 << 40}, 4, ""},
	} {
		got, err := fitShape(c.datatype, c.declared, c.size)
		if (err == nil) != (c.want != "") || err == nil && strings.Join(strings.Fields(string(appendShape(nil, got))), "") != strings.ReplaceAll(c.want, " ", ",") {
			t.Errorf("%s: %v %v", name, got, err)
		}
	}
}

func FuzzReadAnswer(f *testing.F) {
	f.Add([]byte(`{"outputs":[{"name":"y","datatype":"FP32","shape":[2],"data":[1,2]}]}`), "")
	f.Add([]byte(`{"outputs":[{"name":"y","datatype":"BYTES","shape":[1],"parameters":{"binary_data_size":5}}]}`+"\x01\x00\x00\x00a"), "91")
	f.Add([]byte(`{"error":"no"}`), "")
	f.Fuzz(func(t *testing.T, body []byte, length string) {
		a, err := readAnswer(body, length)
		if err != nil {
			return
		}
		for i := range a.tensors {
			if err := a.tensors[i].check(); err != nil {
				t.Fatalf("let through: %v", err)
			}
			_ = appendTensor(nil, &a.tensors[i])
			for n := 1; n < 3; n++ {
				if part, err := a.tensors[i].item(n-1, n); err == nil {
					_, _ = (&Output{Pooling: "mean"}).vector(&part)
					_, _ = (&Output{}).classes(&part)
					o := &Output{Box: "xyxy", Rows: "box,classes"}
					_, _ = (&question{model: &Model{}}).appendBoxes(nil, o, &part, nil, &subject{})
				}
			}
		}
	})
}

func FuzzReadData(f *testing.F) {
	f.Add("FP32", []byte("[1,[2,-3.5e2],null]"))
	f.Add("BYTES", []byte(`["a","\u00e9"]`))
	f.Fuzz(func(t *testing.T, datatype string, text []byte) {
		data, err := readData(datatype, text)
		if err != nil {
			return
		}
		back := appendData(nil, &tensor{datatype: datatype, data: data})
		again, err := readData(datatype, back)
		if err != nil || len(again) != len(data) {
			t.Fatalf("%s of %s became %s: %v", text, datatype, back, err)
		}
	})
}

func FuzzGenerated(f *testing.F) {
	f.Add([]byte(`{"text_output":"a","finish_reason":null,"n":[1,2],"error":null}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		g := generatedReader{wanted: []output{{name: "text_output"}, {name: "n"}}}
		for range 2 { // what one event left behind must not show in the next
			a, err := g.read(text)
			if err != nil {
				return
			}
			for i := range a.tensors {
				if a.tensors[i].datatype == bytesType {
					_ = a.tensors[i].strings()
				}
			}
		}
	})
}

func FuzzPassedJSON(f *testing.F) {
	f.Add([]byte(`{"inputs":[{"name":"x","datatype":"FP32","shape":[1],"data":[1],"parameters":{"a":1}}],"outputs":[{"name":"y"}]}`), 10)
	f.Add([]byte(`{"inputs":[{"name":"x","Parameters":{"shared_memory_region":"a"}}]}`), -1)
	f.Fuzz(func(t *testing.T, body []byte, header int) {
		p := &passage{body: body, header: min(header, len(body))}
		head := body
		if p.header >= 0 {
			head = body[:p.header]
		}
		if p.checkJSON(head) != nil {
			return
		}
		m, _, err := messageOf(p)
		if err != nil {
			return
		}
		if err := messageMayPass(m); err != nil {
			t.Fatal(err)
		}
		if _, err := requestTensors(m); err != nil {
			t.Fatalf("a message of ours cannot be read: %v", err)
		}
	})
}
