package wall

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"math"
	"strings"
)

// reply waits as the script means and sends a JSON object.
func (c *call) reply(v any) error {
	if err := c.think(0); err != nil {
		return err
	}
	body, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("encoding the answer: %w", err)
	}
	return c.plain(200, "application/json", body)
}

type object = map[string]any

// inputs returns the texts of an input: a string, strings, token ids or lists of them.
func inputs(raw json.RawMessage) []string {
	var one string
	if json.Unmarshal(raw, &one) == nil {
		return []string{one}
	}
	var list []json.RawMessage
	if json.Unmarshal(raw, &list) != nil || len(list) == 0 {
		return nil
	}
	if c := strings.TrimSpace(string(list[0])); c != "" && c[0] != '"' && c[0] != '[' && c[0] != '{' {
		return []string{string(raw)}
	}
	texts := make([]string, len(list))
	for i, item := range list {
		if json.Unmarshal(item, &texts[i]) != nil {
			texts[i] = string(item)
		}
	}
	return texts
}

// Embedding returns the vector that the wall answers for a text: a unit vector that depends on the text alone.
func Embedding(text string, dimensions int) []float32 {
	v := make([]float32, dimensions)
	state := sha256.Sum256([]byte(text))
	sum := 0.0
	for i := range v {
		x := float64(int16(binary.LittleEndian.Uint16(state[i%16*2:]))) / (1 << 15)
		v[i] = float32(x)
		sum += x * x
		if i%16 == 15 {
			state = sha256.Sum256(state[:])
		}
	}
	if sum > 0 {
		for i := range v {
			v[i] = float32(float64(v[i]) / math.Sqrt(sum))
		}
	}
	return v
}

func (c *call) embeddings() error {
	texts := inputs(c.f.Input)
	if texts == nil {
		c.invalid(400, "'input' is a required property")
		return errEnded
	}
	dimensions := 8
	if c.f.Dimensions != nil {
		dimensions = min(max(*c.f.Dimensions, 1), 4096)
	}
	data := make([]object, len(texts))
	for i, text := range texts {
		v := Embedding(text, dimensions)
		data[i] = object{"object": "embedding", "index": i, "embedding": v}
		if c.f.EncodingFormat == "base64" {
			raw := make([]byte, 0, 4*len(v))
			for _, x := range v {
				raw = binary.LittleEndian.AppendUint32(raw, math.Float32bits(x))
			}
			data[i]["embedding"] = base64.StdEncoding.EncodeToString(raw)
		}
	}
	answer := object{"object": "list", "data": data, "model": c.f.Model}
	if c.s.Usage != "none" {
		answer["usage"] = object{"prompt_tokens": c.f.prompt, "total_tokens": c.f.prompt}
	}
	return c.reply(answer)
}

func (c *call) moderations() error {
	var results []object
	for _, text := range inputs(c.f.Input) {
		bad := strings.Contains(strings.ToLower(text), "violence")
		results = append(results, object{
			"flagged": bad, "categories": object{"violence": bad, "hate": false},
			"category_scores":              object{"violence": map[bool]float64{true: 0.99, false: 0.01}[bad], "hate": 0.01},
			"category_applied_input_types": object{"violence": []string{"text"}, "hate": []string{"text"}},
		})
	}
	return c.reply(object{"id": c.id("modr-"), "model": c.f.Model, "results": results})
}

// rerank scores a document by the words that it shares with the query.
func (c *call) rerank() error {
	type result struct {
		Index     int             `json:"index"`
		Score     float64         `json:"relevance_score"`
		Documents json.RawMessage `json:"document,omitempty"`
	}
	results := []result{}
	for i, doc := range c.f.Documents {
		shared, words := 0, strings.Fields(strings.ToLower(c.f.Query))
		for _, word := range words {
			if strings.Contains(strings.ToLower(string(doc)), word) {
				shared++
			}
		}
		results = append(results, result{Index: i, Score: float64(shared) / float64(max(len(words), 1))})
	}
	// Best first; equal scores keep their order.
	for i := 1; i < len(results); i++ {
		for j := i; j > 0 && results[j].Score > results[j-1].Score; j-- {
			results[j], results[j-1] = results[j-1], results[j]
		}
	}
	if c.f.TopN != nil {
		results = results[:min(max(*c.f.TopN, 0), len(results))]
	}
	return c.reply(object{"id": c.id("rerank-"), "model": c.f.Model, "results": results, "usage": object{"total_tokens": c.f.prompt}})
}

// pixel is a PNG of one transparent point.
const pixel = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNkYPhfDwAChwGA60e6kgAAAABJRU5ErkJggg=="

func (c *call) images() error {
	data := []object{}
	for range c.f.choices {
		data = append(data, object{"b64_json": pixel, "revised_prompt": "a wall"})
	}
	return c.reply(object{"created": c.created, "data": data})
}

// Speech returns the bytes that the wall answers as audio: n bytes that depend on the seed alone.
func Speech(seed string, n int) []byte {
	b := make([]byte, 0, n+sha256.Size)
	for state := sha256.Sum256([]byte("speech:" + seed)); len(b) < n; state = sha256.Sum256(state[:]) {
		b = append(b, state[:]...)
	}
	return b[:n]
}

// speech sends 1 KiB per token of the script, without a length, paced like tokens.
func (c *call) speech() error {
	if c.s.Error != Never {
		return c.refuseWith(c.s.faultOf(500), c.s.ErrorShape)
	}
	_, tokens, _ := c.s.content()
	audio := Speech(c.s.chain().Seed, tokens<<10)
	c.out.header(&c.s, 200, "audio/mpeg")
	if err := c.breakAt(AfterHeaders, audio); err != nil {
		return err
	}
	if err := c.out.sleep(c.s.First); err != nil {
		return err
	}
	for i := range tokens {
		rest := audio[i<<10:]
		if err := c.breakAt(After(i), rest[:1<<10]); err != nil {
			return err
		}
		if i > 0 {
			if err := c.out.sleep(c.s.Delay); err != nil {
				return err
			}
		}
		if err := c.out.write(rest[:1<<10]); err != nil {
			return err
		}
		c.rec.tokens.Add(1)
	}
	if err := c.breakAt(After(tokens), nil); err != nil {
		return err
	}
	return c.out.end()
}

// transcriptions answers with the chain's text.
func (c *call) transcriptions() error {
	_, tokens, _ := c.s.content()
	spoken := c.s.chain().Text(tokens)
	var format string
	_ = json.Unmarshal(c.f.ResponseFormat, &format)
	if format == "text" {
		if err := c.think(0); err != nil {
			return err
		}
		return c.plain(200, "text/plain; charset=utf-8", []byte(spoken))
	}
	return c.reply(object{"text": spoken, "usage": object{"type": "tokens", "input_tokens": c.f.prompt, "output_tokens": tokens,
		"total_tokens": c.f.prompt + tokens}})
}

func modelObject(name string) object {
	return object{"id": name, "object": "model", "created": 1700000000, "owned_by": "wall"}
}

func (c *call) modelList() error {
	data := []object{}
	for _, name := range c.wall.modelNames() {
		data = append(data, modelObject(name))
	}
	return c.reply(object{"object": "list", "data": data})
}

func (c *call) model() error { return c.reply(modelObject(strings.TrimPrefix(c.path, "/models/"))) }

func (c *call) health() error { return c.reply(object{"status": "ok"}) }
