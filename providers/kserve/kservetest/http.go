package kservetest

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"net/http"
	"strconv"
)

const lengthHeader = "Inference-Header-Content-Length"

func (s *Server) routes() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v2/health/ready", func(http.ResponseWriter, *http.Request) {})
	mux.HandleFunc("GET /v2/models/{model}/ready", func(w http.ResponseWriter, r *http.Request) {
		if m, ok := s.Models[r.PathValue("model")]; !ok || m.NotReady {
			fail(w, &Fault{Status: http.StatusBadRequest, Message: "Model version not ready"})
		}
	})
	if !s.Plain {
		mux.HandleFunc("POST /v2/repository/index", s.index)
	}
	mux.HandleFunc("POST /v2/models/{model}/infer", s.infer)
	mux.HandleFunc("POST /v2/models/{model}/versions/{version}/infer", s.infer)
	mux.HandleFunc("POST /v2/models/{model}/generate_stream", s.generate)
	return mux
}

func fail(w http.ResponseWriter, err error) {
	f := faultOf(err)
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(f.Status)
	_ = json.NewEncoder(w).Encode(map[string]string{"error": f.Message})
}

func (s *Server) index(w http.ResponseWriter, _ *http.Request) {
	type entry struct {
		Name    string `json:"name"`
		Version string `json:"version"`
		State   string `json:"state"`
	}
	all := []entry{}
	for name, m := range s.Models {
		state := "READY"
		if m.NotReady {
			state = "UNAVAILABLE"
		}
		all = append(all, entry{name, "1", state})
	}
	_ = json.NewEncoder(w).Encode(all)
}

type jsonTensor struct {
	Name       string         `json:"name"`
	Datatype   string         `json:"datatype"`
	Shape      []int64        `json:"shape"`
	Parameters map[string]any `json:"parameters,omitempty"`
	Data       any            `json:"data,omitempty"`
}

type jsonRequest struct {
	ID         string         `json:"id"`
	Parameters map[string]any `json:"parameters"`
	Inputs     []jsonTensor   `json:"inputs"`
	Outputs    []jsonTensor   `json:"outputs"`
}

func (s *Server) infer(w http.ResponseWriter, r *http.Request) {
	s.note(r.Header.Clone())
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return
	}
	req, inputs, err := s.read(r, body)
	if err != nil {
		fail(w, err)
		return
	}
	var outputs []Tensor
	err = s.run(r.Context(), r.PathValue("model"), inputs, false, func(t ...Tensor) error {
		outputs = append(outputs, t...)
		return nil
	})
	if err != nil {
		fail(w, err)
		return
	}
	write(w, r.PathValue("model"), req, outputs)
}

func (s *Server) read(r *http.Request, body []byte) (*jsonRequest, []Tensor, error) {
	head, rest := body, []byte(nil)
	if h := r.Header.Get(lengthHeader); h == "0" {
		m := s.Models[r.PathValue("model")]
		if len(m.Inputs) != 1 {
			return nil, nil, &Fault{http.StatusBadRequest, 3, "Raw request must only have 1 input"}
		}
		in := m.Inputs[0]
		in.Shape, in.Raw = []int64{int64(len(body) / max(size(in.Datatype), 1))}, body
		return &jsonRequest{Parameters: map[string]any{"binary_data_output": true}}, []Tensor{in}, nil
	} else if h != "" {
		n, err := strconv.Atoi(h)
		if err != nil || n > len(body) {
			return nil, nil, &Fault{http.StatusBadRequest, 3, "bad " + lengthHeader}
		}
		head, rest = body[:n], body[n:]
	}
	req := new(jsonRequest)
	if err := json.Unmarshal(head, req); err != nil {
		return nil, nil, &Fault{http.StatusBadRequest, 3, "failed to parse the request JSON buffer: " + err.Error()}
	}
	var inputs []Tensor
	for _, in := range req.Inputs {
		t := Tensor{Name: in.Name, Datatype: in.Datatype, Shape: in.Shape}
		if n, ok := in.Parameters["binary_data_size"].(float64); ok {
			if int(n) > len(rest) {
				return nil, nil, &Fault{http.StatusBadRequest, 3, "unexpected size for input '" + in.Name + "'"}
			}
			t.Raw, rest = rest[:int(n)], rest[int(n):]
		} else {
			t.Raw = pack(in.Datatype, in.Data)
		}
		if err := consistent(&t); err != nil {
			return nil, nil, err
		}
		inputs = append(inputs, t)
	}
	return req, inputs, nil
}

// pack turns JSON into bytes.
func pack(datatype string, v any) (raw []byte) {
	switch v := v.(type) {
	case []any:
		for _, e := range v {
			raw = append(raw, pack(datatype, e)...)
		}
	case string:
		raw = binary.LittleEndian.AppendUint32(raw, uint32(len(v)))
		raw = append(raw, v...)
	case bool:
		raw = []byte{0}
		if v {
			raw[0] = 1
		}
	case float64:
		if datatype == "FP32" {
			return binary.LittleEndian.AppendUint32(nil, math.Float32bits(float32(v)))
		}
		raw = binary.LittleEndian.AppendUint64(nil, uint64(int64(v)))[:size(datatype)]
	}
	return raw
}

func write(w http.ResponseWriter, model string, req *jsonRequest, outputs []Tensor) {
	all, _ := req.Parameters["binary_data_output"].(bool)
	head := struct {
		Model   string       `json:"model_name"`
		Version string       `json:"model_version"`
		ID      string       `json:"id,omitempty"`
		Outputs []jsonTensor `json:"outputs"`
	}{Model: model, Version: "1", ID: req.ID, Outputs: []jsonTensor{}}
	var tail []byte
	for _, t := range outputs {
		out, raw := jsonTensor{Name: t.Name, Datatype: t.Datatype, Shape: t.Shape}, all
		for _, want := range req.Outputs {
			if b, ok := want.Parameters["binary_data"].(bool); ok && want.Name == t.Name {
				raw = b
			}
		}
		if raw {
			out.Parameters = map[string]any{"binary_data_size": len(t.Raw)}
			tail = append(tail, t.Raw...)
		} else {
			out.Data = unpack(&t)
		}
		head.Outputs = append(head.Outputs, out)
	}
	text, err := json.Marshal(head)
	if err != nil {
		fail(w, err)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	if len(tail) > 0 {
		w.Header().Set("Content-Type", "application/octet-stream")
		w.Header().Set(lengthHeader, strconv.Itoa(len(text)))
	}
	_, _ = w.Write(append(text, tail...))
}

func unpack(t *Tensor) any {
	switch t.Datatype {
	case "BYTES":
		return t.Strings()
	case "FP32":
		var v []any
		for _, f := range t.Floats() {
			if f != f { // JSON has no number for it
				v = append(v, nil)
			} else {
				v = append(v, f)
			}
		}
		return v
	default:
		var v []int64
		for i := 0; i < len(t.Raw); i += size(t.Datatype) {
			var b [8]byte
			copy(b[:], t.Raw[i:i+size(t.Datatype)])
			v = append(v, int64(binary.LittleEndian.Uint64(b[:])))
		}
		return v
	}
}

// generate is Triton's generate extension.
func (s *Server) generate(w http.ResponseWriter, r *http.Request) {
	s.note(r.Header.Clone())
	var members map[string]any
	if err := json.NewDecoder(r.Body).Decode(&members); err != nil {
		fail(w, &Fault{http.StatusBadRequest, 3, "bad JSON"})
		return
	}
	var inputs []Tensor
	for _, in := range s.Models[r.PathValue("model")].Inputs {
		if v, ok := members[in.Name]; ok {
			in.Raw = pack(in.Datatype, v)
			inputs = append(inputs, in)
		}
	}
	started := false
	event := func(status int, v any) error {
		if !started {
			started = true
			w.Header().Set("Content-Type", "text/event-stream; charset=utf-8")
			w.WriteHeader(status)
		}
		text, err := json.Marshal(v)
		if err != nil {
			return err
		}
		if _, err := fmt.Fprintf(w, "data: %s\n\n", text); err != nil {
			return err
		}
		return http.NewResponseController(w).Flush()
	}
	err := s.run(r.Context(), r.PathValue("model"), inputs, true, func(tensors ...Tensor) error {
		out := map[string]any{"model_name": r.PathValue("model"), "model_version": "1"}
		for _, t := range tensors {
			if v, ok := unpack(&t).([]string); ok && len(v) == 1 {
				out[t.Name] = v[0]
			} else {
				out[t.Name] = unpack(&t)
			}
		}
		return event(http.StatusOK, out)
	})
	if err != nil {
		f := faultOf(err)
		_ = event(f.Status, map[string]string{"error": f.Message})
	}
}
