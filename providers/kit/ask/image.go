package ask

import (
	"encoding/base64"
	"fmt"
	"slices"
	"strings"

	"sluice/providers"
)

// Image is an image of a message, as the caller gave it.
type Image struct {
	Param string // where it stands
	URL   string
	Model string // that it is for, as the caller named it
}

// Data returns what a data URL (RFC 2397) carries: its media type, that of the bytes
// where it says none, and its bytes in padded standard base64 (RFC 4648 section 4). Bytes
// that begin like no image are refused, unless the type is one that is not looked into.
// Addresses are refused, for the gateway fetches nothing on a caller's word.
func (i *Image) Data() (mediaType, data string, err error) {
	rest, ok := cutPrefixFold(i.URL, "data:")
	head, encoded, hasData := strings.Cut(rest, ",")
	head, is64 := cutSuffixFold(head, ";base64")
	mediaType, _, _ = strings.Cut(head, ";")
	mediaType = strings.ToLower(strings.TrimSpace(mediaType))
	switch {
	case !ok:
		return "", "", providers.Invalid(i.Param, fmt.Sprintf("%s must be a data URL (data:image/png;base64,…) for the model %q: the gateway does not fetch images.", i.Param, i.Model))
	case !hasData || !is64:
		return "", "", i.broken("it is no data URL in base64, which begins like data:image/png;base64, and goes on with the data")
	case mediaType != "" && !strings.HasPrefix(mediaType, "image/"):
		return "", "", i.broken("its type is " + mediaType)
	}
	if data, ok = standardBase64(encoded); !ok || data == "" {
		return "", "", i.broken("it holds no valid base64")
	}
	if mediaType != "" && mediaType != "image/jpg" && !slices.ContainsFunc(magics, func(m magic) bool { return m.mediaType == mediaType }) {
		return mediaType, data, nil
	}
	is := sniff(data)
	if is == "" {
		return "", "", i.broken("its data begins like no PNG, JPEG, GIF, WebP, BMP or TIFF")
	}
	if mediaType == "" {
		mediaType = is
	}
	return mediaType, data, nil
}

func (i *Image) broken(why string) error {
	return providers.Invalid(i.Param, fmt.Sprintf("%s is no image that the model %q can be given: %s.", i.Param, i.Model, why))
}

// magic is how the files of a type begin: prefix, and at offset 8 a second mark where the
// first is that of a container.
type magic struct{ mediaType, prefix, at8 string }

var magics = []magic{
	{mediaType: "image/png", prefix: "\x89PNG\r\n\x1a\n"},
	{mediaType: "image/jpeg", prefix: "\xff\xd8\xff"},
	{mediaType: "image/gif", prefix: "GIF87a"},
	{mediaType: "image/gif", prefix: "GIF89a"},
	{mediaType: "image/webp", prefix: "RIFF", at8: "WEBP"},
	{mediaType: "image/bmp", prefix: "BM"},
	{mediaType: "image/tiff", prefix: "II*\x00"},
	{mediaType: "image/tiff", prefix: "MM\x00*"},
}

// sniff is the type of the image that base64 begins like, "" for none of magics.
func sniff(data string) string {
	var head [12]byte
	n, _ := base64.StdEncoding.Decode(head[:], []byte(data[:min(len(data), base64.StdEncoding.EncodedLen(len(head)))]))
	text := string(head[:n])
	for _, m := range magics {
		if strings.HasPrefix(text, m.prefix) && (m.at8 == "" || len(text) > 8 && text[8:] == m.at8) {
			return m.mediaType
		}
	}
	return ""
}

func cutPrefixFold(s, prefix string) (rest string, ok bool) {
	if len(s) < len(prefix) || !strings.EqualFold(s[:len(prefix)], prefix) {
		return s, false
	}
	return s[len(prefix):], true
}

func cutSuffixFold(s, suffix string) (rest string, ok bool) {
	at := len(s) - len(suffix)
	if at < 0 || !strings.EqualFold(s[at:], suffix) {
		return s, false
	}
	return s[:at], true
}

// standardBase64 brings base64 into the one form that every server reads: the standard
// alphabet, padded, without line ends. A text that is so already is not copied.
func standardBase64(s string) (string, bool) {
	if strings.ContainsAny(s, "-_ \t\r\n%") {
		s = strings.NewReplacer("-", "+", "_", "/", " ", "", "\t", "", "\r", "", "\n", "",
			"%2B", "+", "%2b", "+", "%2F", "/", "%2f", "/", "%3D", "=", "%3d", "=").Replace(s)
	}
	body := strings.TrimRight(s, "=")
	pads := len(s) - len(body)
	need := (4 - len(body)%4) % 4
	if need == 3 || pads > 2 || pads > 0 && pads != need {
		return "", false
	}
	for i := range len(body) {
		if !isBase64(body[i]) {
			return "", false
		}
	}
	if pads == need {
		return s, true
	}
	return body + strings.Repeat("=", need), true
}

func isBase64(ch byte) bool {
	return ch-'A' < 26 || ch-'a' < 26 || ch-'0' < 10 || ch == '+' || ch == '/'
}
