package main

import (
	"errors"
	"fmt"
	"net/url"
	"strings"

	"sluice/providers/kit"
	"sluice/providers/kit/pixels"
	"sluice/providers/kserve"
)

// KServe is what an upstream of kind "kserve" has beyond others.
type KServe struct {
	Transport     string        `toml:"transport" oneof:"http,grpc" doc:"Which of the server's ports base_url names"`
	BinaryTensors bool          `toml:"binary_tensors" doc:"Whether tensors go as bytes behind the JSON (binary tensor data extension) over HTTP; off for servers that cannot read them."`
	Streams       string        `toml:"streams" oneof:"triton,plain" doc:"Messages of ModelStreamInfer: Triton's, or plain answers that end with the call (MLServer)"`
	MaxImages     int           `toml:"max_images" min:"1" max:"1024" doc:"Images in one request; beyond it 400."`
	MaxPixels     int           `toml:"max_pixels" min:"1" max:"268435456" doc:"Pixels of one image; beyond it 400 before it is decoded."`
	Decoders      int           `toml:"decoders" min:"0" max:"1024" doc:"Images decoded at once; 0 is one for each processor. Upstreams share their decoders, memory and queue: the largest bound of any holds for all together."`
	DecodeMemory  Size          `toml:"decode_memory" min:"1MiB" doc:"Memory for images that are being decoded; further ones wait."`
	DecodeQueue   int           `toml:"decode_queue" min:"0" max:"65536" doc:"Images that may wait to be decoded; beyond it 503."`
	Models        []KServeModel `toml:"models" doc:"What the inputs and outputs of a model mean. Models without this can only be sent tensors (POST /v1/models/{model}/infer)."`

	schemas []kserve.Model // Models, once validated
	images  *pixels.Pool   // once an adapter was made
}

// KServeModel is one [[upstreams.kserve.models]] table.
type KServeModel struct {
	Name          string         `toml:"name" example:"\"resnet50\"" doc:"Its name at the server."`
	Version       string         `toml:"version" doc:"Version that is asked; \"\" leaves it to the server."`
	Batch         int            `toml:"batch" min:"1" max:"4096" doc:"Images or texts asked about in one call; more than 1 needs inputs whose first axis is -1."`
	Decoupled     bool           `toml:"decoupled" doc:"Whether it answers a call any number of times, as generators of text do; it is then asked over a stream."`
	Cumulative    bool           `toml:"cumulative" doc:"Whether each text of a stream repeats what came before it."`
	Template      string         `toml:"template" doc:"How conversations become prompts: chatml, llama2, llama3, mistral, alpaca, vicuna, raw, or the path of a file (docs/adapters.md); \"\" sends the last message of the user as it is."`
	TemplateStops []string       `toml:"template_stops" doc:"Marks that end a turn in a template of your own."`
	Think         string         `toml:"think" oneof:"off,split,begun" doc:"Whether <think> blocks are told apart as reasoning; begun: the template opens the block"`
	Inputs        []KServeInput  `toml:"inputs" doc:"Its input tensors."`
	Outputs       []KServeOutput `toml:"outputs" doc:"Those of its output tensors that are asked for."`
}

// KServeInput is one [[upstreams.kserve.models.inputs]] table.
type KServeInput struct {
	Name      string    `toml:"name" example:"\"input\"" doc:"Name of the tensor."`
	Datatype  string    `toml:"datatype" example:"\"FP32\"" doc:"BOOL, UINT8 to UINT64, INT8 to INT64, FP16, BF16, FP32, FP64 or BYTES."`
	Shape     []int     `toml:"shape" example:"[-1, 3, 224, 224]" doc:"As it is sent; a first axis of -1 is as long as there are images or texts in the call."`
	From      string    `toml:"from" oneof:"image,encoded,base64,text,value,param,sampling" doc:"Pixels of an image; the image's bytes as sent, or as base64, for servers that decode; a text or prompt; always the same value; a parameter of the request; all parameters of sampling as one JSON object (Triton's vLLM backend)"`
	Layout    string    `toml:"layout" oneof:"NCHW,NHWC" doc:"Order of the axes of pixels (N only where the shape has it)"`
	Colours   string    `toml:"colours" oneof:"RGB,BGR,grey" doc:"Channels of pixels"`
	Scale     float64   `toml:"scale" doc:"Pixels (0 to 255) are multiplied by it, then mean is taken away, then std divides; 0 is 1/255 for FP types, else 1."`
	Mean      []float64 `toml:"mean" doc:"One number for each channel, such as [0.485, 0.456, 0.406]; [] is none."`
	Std       []float64 `toml:"std" doc:"One number for each channel, such as [0.229, 0.224, 0.225]; [] is none."`
	Fit       string    `toml:"fit" oneof:"stretch,crop,letterbox" doc:"How an image of another shape comes into the tensor's: as a whole, its sides bent; its middle; as a whole with bars"`
	CropRatio float64   `toml:"crop_ratio" min:"0" max:"1" doc:"How much of the middle is taken, such as 0.875 for 224 of 256; 0 is all."`
	Pad       int       `toml:"pad" min:"0" max:"255" doc:"Grey of the bars."`
	Value     string    `toml:"value" doc:"JSON: the value (such as \"0.5\" or \"[1, 2]\"), or that of a parameter which the request does not have; \"\" leaves the input out then."`
	Param     string    `toml:"param" doc:"The parameter of the request: max_tokens, temperature, top_p, seed, ..."`
}

// KServeOutput is one [[upstreams.kserve.models.outputs]] table.
type KServeOutput struct {
	Name           string   `toml:"name" example:"\"output\"" doc:"Name of the tensor."`
	As             string   `toml:"as" oneof:"classes,boxes,embedding,text,tensor,finish_reason,prompt_tokens,completion_tokens,part" doc:"What it is; part: something that another output needs"`
	Key            string   `toml:"key" doc:"Where it stands in the results; \"\" is what it is, or a tensor's name."`
	Labels         []string `toml:"labels" group:"labels" example:"[\"cat\", \"dog\"]" doc:"Names of classes, by number."`
	LabelsFile     string   `toml:"labels_file" group:"labels" example:"\"imagenet.txt\"" doc:"Or a file with one on each line."`
	Top            int      `toml:"top" min:"0" doc:"Classes or boxes told at most; 0 is all."`
	Threshold      float64  `toml:"threshold" doc:"Least score that is told."`
	Activation     string   `toml:"activation" oneof:"none,softmax,sigmoid" doc:"What makes scores of the tensor's numbers"`
	Classification int      `toml:"classification" min:"0" max:"100000" doc:"Asks the server for so many best classes instead of all scores (classification extension); 0 does not."`
	Rows           string   `toml:"rows" doc:"What a row of boxes holds: \"box\" (scores and classes are tensors of their own), \"box,score,class\", \"box,classes\" (a score for each) or \"box,object,classes\"."`
	Box            string   `toml:"box" oneof:"xyxy,yxyx,xywh,cxcywh" doc:"What the four numbers of a box are"`
	Normalized     bool     `toml:"normalized" doc:"Whether they are from 0 to 1, and not pixels of the input."`
	Transposed     bool     `toml:"transposed" doc:"Whether the rows of boxes are columns."`
	Scores         string   `toml:"scores" doc:"The tensor with the scores of rows that hold a box only ..."`
	Classes        string   `toml:"classes" doc:"... with their classes ..."`
	Count          string   `toml:"count" doc:"... and with how many of the rows are meant."`
	NMS            float64  `toml:"nms" min:"0" max:"1" doc:"Overlap above which the lesser of two boxes of a class is left out; 0 leaves none out."`
	Pooling        string   `toml:"pooling" oneof:"none,mean,first" doc:"What makes one embedding of several vectors"`
	Normalize      bool     `toml:"normalize" doc:"Whether an embedding is brought to the length 1."`

	labels []string // Labels, or what LabelsFile holds
}

func (k *KServe) setDefaults() {
	*k = KServe{
		Transport: "http", BinaryTensors: true, Streams: "triton",
		MaxImages: 16, MaxPixels: 16 << 20, DecodeMemory: 256 * mib, DecodeQueue: 256, Models: []KServeModel{},
	}
}

func (m *KServeModel) setDefaults() {
	*m = KServeModel{Batch: 1, TemplateStops: []string{}, Think: defaultThink, Inputs: []KServeInput{}, Outputs: []KServeOutput{}}
}

func (i *KServeInput) setDefaults() {
	*i = KServeInput{From: "image", Layout: "NCHW", Colours: "RGB", Fit: "stretch", Pad: 114}
}

func (o *KServeOutput) setDefaults() {
	*o = KServeOutput{As: "tensor", Labels: []string{}, Activation: "none", Box: "xyxy", Pooling: "none"}
}

// validateKServe checks what an upstream of kind "kserve" needs, and makes its schemas.
func (d *decoder) validateKServe(at string, u *Upstream) {
	k := &u.KServe
	base, err := url.Parse(u.BaseURL)
	switch {
	case err == nil && k.Transport == "grpc" && strings.Trim(base.Path, "/") != "":
		d.failAt(at+".base_url", "a gRPC server has no path: want http://host:port, or https for TLS")
	case k.Transport == "grpc" && (u.Proxy.URL() != nil || len(u.Query) > 0):
		d.failAt(at, "proxy and query have no meaning for gRPC")
	}
	names := map[string]string{}
	k.schemas = nil
	for i := range k.Models {
		m, at := &k.Models[i], fmt.Sprintf("%s.kserve.models[%d]", at, i)
		d.unique(names, m.Name, at+".name")
		if schema, ok := d.schema(at, k, m); ok {
			k.schemas = append(k.schemas, schema)
		}
	}
}

// schema makes the adapter's form of one model.
func (d *decoder) schema(at string, k *KServe, m *KServeModel) (kserve.Model, bool) {
	before := len(d.problems)
	out := kserve.Model{Name: m.Name, Version: m.Version, Batch: m.Batch, Decoupled: m.Decoupled, Cumulative: m.Cumulative}
	if m.Think != "off" {
		out.Think = &kit.Think{Begun: m.Think == "begun"}
	}
	if m.Template != "" {
		out.Template = d.namedTemplate(at+".template", m.Template, m.TemplateStops)
	}
	for i := range m.Inputs {
		in := &m.Inputs[i]
		if in.From == "encoded" && k.Transport == "http" && !k.BinaryTensors {
			d.failAt(fmt.Sprintf("%s.inputs[%d].from", at, i), `the bytes of an image cannot go as JSON: set binary_tensors, or from = "base64"`)
		}
		out.Inputs = append(out.Inputs, in.schema())
	}
	for i := range m.Outputs {
		d.loadLabels(fmt.Sprintf("%s.outputs[%d]", at, i), &m.Outputs[i])
		out.Outputs = append(out.Outputs, m.Outputs[i].schema())
	}
	if f := new(kserve.Fault); errors.As(out.Check(), &f) && !d.badBelow(at) {
		d.failAt(at+"."+f.Path, "%s", f.Err)
	}
	return out, len(d.problems) == before
}

// badBelow reports whether something in a table is known to be wrong.
func (d *decoder) badBelow(table string) bool {
	for path := range d.bad {
		if strings.HasPrefix(path, table+".") {
			return true
		}
	}
	return false
}

// namedTemplate is a built-in chat template, or one in a file.
func (d *decoder) namedTemplate(path, name string, stops []string) *kit.Template {
	if !strings.ContainsAny(name, `/\.`) {
		t, err := kit.NamedTemplate(name)
		if err != nil {
			d.failAt(path, "%s", err)
		}
		return t
	}
	text, err := d.readFile(path, d.resolve(path, name), maxTemplate)
	if err != nil {
		d.failAt(path, "cannot read it: %s", reason(err))
		return nil
	}
	t, err := kit.ParseTemplate(name, string(text), stops)
	if err != nil {
		d.failAt(path, "%s", err)
	}
	return t
}

// maxLabels bounds a file of labels.
const maxLabels = 4 << 20

func (d *decoder) loadLabels(at string, o *KServeOutput) {
	o.labels = o.Labels
	d.exclusive(at, len(o.Labels) > 0, "labels", o.LabelsFile != "", "labels_file")
	if o.LabelsFile == "" {
		return
	}
	text, err := d.readFile(at+".labels_file", d.resolve(at+".labels_file", o.LabelsFile), maxLabels)
	if err != nil {
		d.failAt(at+".labels_file", "cannot read it: %s", reason(err))
		return
	}
	o.labels = nil
	for line := range strings.Lines(string(text)) {
		o.labels = append(o.labels, strings.TrimRight(line, "\r\n"))
	}
}

var (
	colourOrders = map[string]pixels.Colours{"RGB": pixels.RGB, "BGR": pixels.BGR, "grey": pixels.Grey}
	fits         = map[string]pixels.Fit{"stretch": pixels.Stretch, "crop": pixels.Crop, "letterbox": pixels.Letterbox}
)

func (i *KServeInput) schema() kserve.Input {
	out := kserve.Input{
		Name: i.Name, Datatype: i.Datatype, Source: kserve.Source(i.From), Layout: i.Layout, Value: i.Value, Param: i.Param,
		Picture: pixels.Spec{Colours: colourOrders[i.Colours], Scale: i.Scale, Mean: i.Mean, Std: i.Std, Fit: fits[i.Fit], CropRatio: i.CropRatio, Pad: uint8(i.Pad)},
	}
	for _, axis := range i.Shape {
		out.Shape = append(out.Shape, int64(axis))
	}
	return out
}

func (o *KServeOutput) schema() kserve.Output {
	return kserve.Output{
		Name: o.Name, Meaning: kserve.Meaning(o.As), Key: o.Key, Labels: o.labels, Top: o.Top, Threshold: o.Threshold,
		Activation: o.Activation, Classification: o.Classification, Rows: o.Rows, Box: o.Box, Normalized: o.Normalized, Transposed: o.Transposed,
		Scores: o.Scores, Classes: o.Classes, Count: o.Count, NMS: o.NMS, Pooling: o.Pooling, Normalize: o.Normalize,
	}
}
