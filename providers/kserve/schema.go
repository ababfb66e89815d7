package kserve

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"sluice/providers/kit"
	"sluice/providers/kit/pixels"
)

// Model is the declared schema of one model: how what callers send becomes its inputs,
// and what its outputs mean.
type Model struct {
	Name    string
	Version string // "" leaves it to the server
	// Batch is how many images or texts are asked about in one call, at least 1. More
	// than one needs inputs whose first axis is open (-1).
	Batch int
	// Decoupled says that the model answers a call any number of times, as generators of
	// text do; it is then asked over a stream.
	Decoupled bool
	// Cumulative says that each text of a stream holds those before it too.
	Cumulative bool
	// Template makes the prompt for a model that writes text. Nil takes the last message
	// of the user as it is.
	Template *kit.Template
	// Think tells thoughts from the answer. Nil leaves them in the text.
	Think   *kit.Think
	Inputs  []Input
	Outputs []Output
}

// Source says where an input comes from.
type Source string

// The sources.
const (
	FromImage    Source = "image"    // the pixels of an image, as Picture says
	FromEncoded  Source = "encoded"  // the bytes of an image as it was sent, for servers that decode
	FromBase64   Source = "base64"   // the same as text
	FromText     Source = "text"     // a text, or a prompt
	FromValue    Source = "value"    // the same value always
	FromParam    Source = "param"    // a parameter of the request
	FromSampling Source = "sampling" // all parameters of sampling as one JSON object (vLLM's backend)
)

// Input is one input tensor.
type Input struct {
	Name     string
	Datatype string
	// Shape is what the server is sent. A first axis of -1 is as long as there are things
	// to ask about at once.
	Shape   []int64
	Source  Source
	Picture pixels.Spec // of FromImage; Check fills in what the shape says
	Layout  string      // of FromImage: "NCHW" or "NHWC", the N only where the shape has it
	// Value is JSON: of FromValue the value, of FromParam what is sent for a request
	// without the parameter ("" leaves the input out).
	Value string
	Param string // of FromParam: max_tokens, temperature, top_p, top_k, seed, ...
}

// Meaning says what an output is.
type Meaning string

// The meanings.
const (
	AsClasses      Meaning = "classes"           // one score for each class
	AsBoxes        Meaning = "boxes"             // objects with their places
	AsEmbedding    Meaning = "embedding"         // a vector
	AsText         Meaning = "text"              // text that the model has written
	AsTensor       Meaning = "tensor"            // anything, told as it is
	AsFinishReason Meaning = "finish_reason"     // why a text ended
	AsPromptTokens Meaning = "prompt_tokens"     // what the prompt had
	AsOutputTokens Meaning = "completion_tokens" // what was written
	AsPart         Meaning = "part"              // asked for, and used by another output
)

// Output is one output tensor.
type Output struct {
	Name    string
	Meaning Meaning
	Key     string // in the JSON of results; "" is the meaning, of a tensor its name

	Labels    []string // of classes, by index
	Top       int      // classes or boxes told at most; 0 is all
	Threshold float64  // least score that is told
	// Activation is what makes scores of what the model gives: "softmax", "sigmoid" or
	// "none".
	Activation string
	// Classification asks the server for its best classes (the classification extension).
	Classification int

	// Rows is what one row of boxes holds: "box" (scores and classes come in tensors of
	// their own), "box,score,class", "box,classes" (a score for each class) or
	// "box,object,classes" (the same, weighed by that of an object).
	Rows string
	// Box is what the four numbers of a box are: "xyxy", "yxyx", "xywh" or "cxcywh".
	Box        string
	Normalized bool // coordinates are from 0 to 1 and not in pixels of the input
	Transposed bool // rows are columns
	// Scores, Classes and Count name the tensors that go with rows of "box".
	Scores, Classes, Count string
	// NMS is the overlap (intersection over union) above which the lesser of two boxes of
	// one class is left out; 0 leaves none out.
	NMS float64

	Pooling   string // of an embedding of several vectors: "none", "mean" or "first"
	Normalize bool   // an embedding is scaled to the length 1
}

// generates reports whether the model writes text.
func (m *Model) generates() bool { return m.output(AsText) != nil }

// output returns the first output of a meaning.
func (m *Model) output(meaning Meaning) *Output {
	for i := range m.Outputs {
		if m.Outputs[i].Meaning == meaning {
			return &m.Outputs[i]
		}
	}
	return nil
}

// takes reports whether an input comes from one of the sources.
func (m *Model) takes(from ...Source) bool {
	return slices.ContainsFunc(m.Inputs, func(in Input) bool { return slices.Contains(from, in.Source) })
}

// takesImages reports whether the model is asked about images.
func (m *Model) takesImages() bool { return m.takes(FromImage, FromEncoded, FromBase64) }

// Fault is what is wrong with a schema, and where: "inputs[0].shape".
type Fault struct {
	Path string
	Err  error
}

func (f *Fault) Error() string { return f.Path + ": " + f.Err.Error() }

func fault(path, format string, args ...any) *Fault { return &Fault{path, fmt.Errorf(format, args...)} }

// Check completes a schema and returns what is wrong with it, a *Fault.
func (m *Model) Check() error {
	m.Batch = max(m.Batch, 1)
	switch {
	case m.Name == "":
		return fault("name", "a name is required")
	case len(m.Inputs) == 0:
		return fault("inputs", "at least one input is required")
	case len(m.Outputs) == 0:
		return fault("outputs", "at least one output is required")
	case m.generates() && m.Batch > 1:
		return fault("batch", "a model that writes text is asked for one text at a time")
	}
	seen := map[string]bool{}
	for i := range m.Inputs {
		if err := m.Inputs[i].check(m.Batch); err != nil {
			return &Fault{fmt.Sprintf("inputs[%d].%s", i, err.Path), err.Err}
		}
		if seen[m.Inputs[i].Name] {
			return fault(fmt.Sprintf("inputs[%d].name", i), "%q is taken already", m.Inputs[i].Name)
		}
		seen[m.Inputs[i].Name] = true
	}
	if !m.takesImages() && !m.takes(FromText) {
		return fault("inputs", "no input is from an image or a text, so every call would be the same")
	}
	return m.checkOutputs()
}

func (in *Input) check(batch int) *Fault {
	if in.Name == "" {
		return fault("name", "a name is required")
	}
	if in.Datatype != bytesType && elementSizes[in.Datatype] == 0 {
		return fault("datatype", "%q is not a datatype of the protocol", in.Datatype)
	}
	if len(in.Shape) == 0 {
		return fault("shape", "a shape is required, such as [-1, 3, 224, 224]")
	}
	for i, d := range in.Shape {
		if d == 0 || d < -1 || d == -1 && i > 0 || d > 1<<20 {
			return fault("shape", "axes are from 1 to 1048576; only the first may be -1")
		}
	}
	if batch > 1 && in.Shape[0] != -1 {
		return fault("shape", "the first axis must be -1 for a batch of more than 1")
	}
	return in.checkSource()
}

func (in *Input) checkSource() *Fault {
	bytesWanted := in.Source == FromEncoded || in.Source == FromBase64 || in.Source == FromText || in.Source == FromSampling
	single, _ := elements(in.each())
	switch {
	case bytesWanted && in.Datatype != bytesType:
		return fault("datatype", "what is from %s is BYTES", in.Source)
	case in.Source != FromImage && in.Source != FromValue && single != 1:
		return fault("shape", "what is from %s is one element; all axes but a first one of -1 must be 1", in.Source)
	case in.Source == FromImage:
		return in.checkPicture()
	case in.Source == FromParam && in.Param == "":
		return fault("param", "name the parameter of the request")
	case in.Source == FromValue || in.Source == FromParam && in.Value != "":
		data, err := readData(in.Datatype, []byte(in.Value))
		if err != nil {
			return fault("value", "%s", err)
		}
		t := tensor{datatype: in.Datatype, shape: in.each(), data: data}
		if err := t.check(); err != nil {
			return fault("value", "%s", err)
		}
	case !bytesWanted && in.Source != FromParam:
		return fault("from", "%q is not known", in.Source)
	}
	return nil
}

// each is the shape of what belongs to one thing that is asked about.
func (in *Input) each() []int64 {
	if in.Shape[0] == -1 {
		return in.Shape[1:]
	}
	return in.Shape
}

var pictureTypes = map[string]pixels.Type{
	"FP32": pixels.Float32, "FP16": pixels.Float16, "BF16": pixels.BFloat16, "UINT8": pixels.Uint8, "INT8": pixels.Int8,
}

// checkPicture takes the size of the picture from the shape.
func (in *Input) checkPicture() *Fault {
	kind, ok := pictureTypes[in.Datatype]
	if !ok {
		return fault("datatype", "pixels are FP32, FP16, BF16, UINT8 or INT8")
	}
	in.Picture.Type = kind
	shape := in.Shape
	if len(shape) == 4 {
		if shape[0] > 1 {
			return fault("shape", "the first of four axes must be -1 or 1")
		}
		shape = shape[1:]
	}
	if len(shape) != 3 || slices.Contains(shape, -1) {
		return fault("shape", "pixels have three axes, or four with that of the batch")
	}
	channels := shape[2]
	switch strings.TrimPrefix(in.Layout, "N") {
	case "CHW":
		in.Picture.Planar = true
		channels, in.Picture.Height, in.Picture.Width = shape[0], int(shape[1]), int(shape[2])
	case "HWC":
		in.Picture.Height, in.Picture.Width = int(shape[0]), int(shape[1])
	default:
		return fault("layout", `must be "NCHW" or "NHWC"`)
	}
	if int(channels) != in.Picture.Colours.Channels() {
		return fault("shape", "it has %d channels in the layout %s, and the colours have %d", channels, in.Layout, in.Picture.Colours.Channels())
	}
	if err := in.Picture.Check(); err != nil {
		return &Fault{"shape", err}
	}
	return nil
}

func (m *Model) checkOutputs() error {
	seen := map[string]bool{}
	for i := range m.Outputs {
		o := &m.Outputs[i]
		at := func(key string) string { return fmt.Sprintf("outputs[%d].%s", i, key) }
		switch {
		case o.Name == "":
			return fault(at("name"), "a name is required")
		case seen[o.Name]:
			return fault(at("name"), "%q is taken already", o.Name)
		case o.Meaning == AsBoxes && !m.takesImages():
			return fault(at("as"), "boxes are places in an image, and no input is from one")
		}
		seen[o.Name] = true
		if err := o.check(m); err != nil {
			return &Fault{at(err.Path), err.Err}
		}
		if o.Key == "" {
			o.Key = string(o.Meaning)
			if o.Meaning == AsTensor {
				o.Key = o.Name
			}
		}
	}
	return nil
}

func (o *Output) check(m *Model) *Fault {
	one := func(v string, of ...string) bool { return slices.Contains(of, v) }
	switch o.Meaning {
	case AsClasses:
		if !one(o.Activation, "", "none", "softmax", "sigmoid") {
			return fault("activation", `must be "softmax", "sigmoid" or "none"`)
		}
	case AsBoxes:
		return o.checkBoxes(m)
	case AsEmbedding:
		if !one(o.Pooling, "", "none", "mean", "first") {
			return fault("pooling", `must be "none", "mean" or "first"`)
		}
	case AsText, AsTensor, AsFinishReason, AsPromptTokens, AsOutputTokens, AsPart:
	default:
		return fault("as", "%q is not known", o.Meaning)
	}
	return nil
}

func (o *Output) checkBoxes(m *Model) *Fault {
	switch {
	case !slices.Contains([]string{"xyxy", "yxyx", "xywh", "cxcywh"}, o.Box):
		return fault("box", `must be "xyxy", "yxyx", "xywh" or "cxcywh"`)
	case !slices.Contains([]string{"box", "box,score,class", "box,classes", "box,object,classes"}, o.Rows):
		return fault("rows", `must be "box", "box,score,class", "box,classes" or "box,object,classes"`)
	case o.Rows == "box" && o.Scores == "":
		return fault("scores", `rows of "box" need the tensor with their scores`)
	case !slices.Contains([]string{"", "none", "sigmoid"}, o.Activation):
		return fault("activation", `must be "sigmoid" or "none"`)
	case o.NMS < 0 || o.NMS > 1:
		return fault("nms", "must be from 0 to 1")
	}
	for key, name := range map[string]string{"scores": o.Scores, "classes": o.Classes, "count": o.Count} {
		if name != "" && !slices.ContainsFunc(m.Outputs, func(other Output) bool { return other.Name == name }) {
			return &Fault{key, errors.New("declare the tensor " + name + ` as an output too, as = "part"`)}
		}
	}
	return nil
}
