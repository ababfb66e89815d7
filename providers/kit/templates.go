package kit

// builtIn are the prompt formats that models are most often trained on. No system text
// is made up where a caller sends none. Marks that tokenizers put at the front of every
// prompt by themselves (<s>, <|begin_of_text|>) are left to them.
var builtIn = []struct {
	name, text string
	stops      []string // end a turn, whatever the server takes for the end
	eos        []string // are what models of this format end with
	marks      []string // beside those, what no message may contain as it is
}{
	{
		name: "chatml",
		text: `{{range .Messages}}<|im_start|>{{.Role}}
{{.Text}}<|im_end|>
{{end}}<|im_start|>assistant
{{.Prefill}}`,
		stops: []string{"<|im_end|>"},
		eos:   []string{"<|endoftext|>"},
		marks: []string{"<|im_start|>"},
	},
	{
		name: "llama2",
		text: `{{range $i, $t := .Turns}}{{if $i}}<s>{{end}}[INST] {{if and (not $i) $.System}}<<SYS>>
{{$.System}}
<</SYS>>

{{end}}{{trim .User}} [/INST]{{with .Assistant}} {{.}}{{end}}{{if not .Last}} </s>{{end}}{{end}}`,
		eos:   []string{"</s>"},
		marks: []string{"[INST]", "[/INST]", "<<SYS>>", "<</SYS>>", "<s>"},
	},
	{
		name: "llama3",
		text: `{{range .Messages}}<|start_header_id|>{{.Role}}<|end_header_id|>

{{trim .Text}}<|eot_id|>{{end}}<|start_header_id|>assistant<|end_header_id|>

{{.Prefill}}`,
		stops: []string{"<|eot_id|>", "<|eom_id|>"},
		eos:   []string{"<|end_of_text|>"},
		marks: []string{"<|start_header_id|>", "<|end_header_id|>", "<|begin_of_text|>", "<|python_tag|>"},
	},
	{
		name: "mistral",
		text: `{{range $i, $t := .Turns}}[INST] {{if and (not $i) $.System}}{{$.System}}

{{end}}{{.User}} [/INST]{{with .Assistant}} {{.}}{{end}}{{if not .Last}}</s>{{end}}{{end}}`,
		eos:   []string{"</s>"},
		marks: []string{"[INST]", "[/INST]", "<s>"},
	},
	{
		name: "alpaca",
		text: `{{with .System}}{{.}}

{{end}}{{range .Turns}}### Instruction:
{{.User}}

### Response:
{{.Assistant}}{{if not .Last}}

{{end}}{{end}}`,
		stops: []string{"### Instruction:"},
		eos:   []string{"</s>"},
		marks: []string{"### Response:", "<s>"},
	},
	{
		name:  "vicuna",
		text:  `{{with .System}}{{.}} {{end}}{{range .Turns}}USER: {{.User}} ASSISTANT:{{with .Assistant}} {{.}}{{end}}{{if not .Last}}</s>{{end}}{{end}}`,
		eos:   []string{"</s>"},
		marks: []string{"USER:", "ASSISTANT:", "<s>"},
	},
	{
		name: "raw",
		text: `{{range $i, $m := .Messages}}{{if $i}}
{{end}}{{.Text}}{{end}}{{with .Prefill}}
{{.}}{{end}}`,
	},
}
