package ask

import (
	"fmt"

	"sluice/providers"
)

// maxTop is how many likely tokens a caller may ask for.
const maxTop = 20

// Logprobs takes whether log probabilities are asked for, and how many likely tokens beside
// each that was chosen: logprobs and top_logprobs of a chat, the number logprobs of a legacy
// completion.
func (q *Params) Logprobs() (want bool, top int64, err error) {
	if q.req.Op == providers.Completions {
		if v := q.values["logprobs"]; string(v) == "false" {
			q.Take("logprobs")
			return false, 0, nil
		}
		top, want, err = q.Integer("logprobs", 0)
		return want, top, q.mostTop(top, "logprobs", err)
	}
	if want, err = q.Bool("logprobs"); err != nil {
		return false, 0, err
	}
	top, _, err = q.Integer("top_logprobs", 0)
	if err == nil && top > 0 && !want {
		err = q.Wrong("logprobs", "true where top_logprobs is set")
	}
	return want, top, q.mostTop(top, "top_logprobs", err)
}

func (q *Params) mostTop(n int64, name string, err error) error {
	if err == nil && n > maxTop {
		err = q.Wrong(name, fmt.Sprintf("an integer from 0 to %d", maxTop))
	}
	return err
}
