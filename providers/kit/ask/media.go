package ask

import (
	"fmt"
	"strings"

	"sluice/providers"
	"sluice/streaming/jsonscan"
)

// Media is sound or a document in a message.
type Media struct {
	Param string // where it stands
	Type  string // its media type, in lower case and without parameters
	Name  string // of a document, "" when the caller gave none
	Data  string // padded standard base64 (RFC 4648 section 4)
}

// TakeMedia lets Messages return media. Without it they are refused, as content that the
// upstream has no place for.
func (q *Params) TakeMedia() { q.media = true }

// sounds are the media types of OpenAI's formats, and of those that others take beside
// them.
var sounds = map[string]string{
	"wav": "audio/wav", "mp3": "audio/mp3", "aiff": "audio/aiff", "aac": "audio/aac", "ogg": "audio/ogg", "flac": "audio/flac",
}

// readMedia reads the member of an input_audio or a file part that bears its name.
func (q *Params) readMedia(v []byte, param, kind string) (*Media, error) {
	param += "." + kind
	word := func(name string) string {
		s, _ := jsonscan.Unquote(member(v, name))
		return s
	}
	if kind == "file" {
		if word("file_id") != "" {
			return nil, q.CannotRead(param+".file_id", "a file by its id (send file_data)")
		}
		return q.document(param+".file_data", word("filename"), word("file_data"))
	}
	m := &Media{Param: param + ".data", Type: sounds[strings.ToLower(word("format"))]}
	if m.Type == "" {
		return nil, q.Wrong(param+".format", `"wav", "mp3", "aiff", "aac", "ogg" or "flac"`)
	}
	var ok bool
	if m.Data, ok = standardBase64(word("data")); !ok || m.Data == "" {
		return nil, q.notBase64(m.Param)
	}
	return m, nil
}

func (q *Params) notBase64(param string) error {
	return providers.Invalid(param, fmt.Sprintf("%s holds no valid base64, so the model %q cannot be given it.", param, q.req.Model))
}

// document takes a data URL (RFC 2397) apart, which must tell its type.
func (q *Params) document(param, name, url string) (*Media, error) {
	rest, isURL := cutPrefixFold(url, "data:")
	head, data, hasData := strings.Cut(rest, ",")
	head, is64 := cutSuffixFold(head, ";base64")
	kind, _, _ := strings.Cut(head, ";")
	kind = strings.ToLower(strings.TrimSpace(kind))
	if !isURL || !hasData || !is64 || !strings.Contains(kind, "/") {
		return nil, q.Wrong(param, "a data URL in base64 that tells its type, such as data:application/pdf;base64,…")
	}
	data, ok := standardBase64(data)
	if !ok || data == "" {
		return nil, q.notBase64(param)
	}
	return &Media{Param: param, Type: kind, Name: name, Data: data}, nil
}
