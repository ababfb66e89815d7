package ask

import (
	"strings"

	"sluice/providers"
)

// Image is an image of a message, as the caller gave it.
type Image struct {
	Param string // where it stands
	URL   string
}

// Data returns what a data URL (RFC 2397) carries: its media type, "" when it says
// none, and its bytes in padded standard base64 (RFC 4648 section 4). Addresses are
// refused, for the gateway fetches nothing on a caller's word.
func (i *Image) Data() (mediaType, base64 string, err error) {
	rest, ok := cutPrefixFold(i.URL, "data:")
	head, data, hasData := strings.Cut(rest, ",")
	head, is64 := cutSuffixFold(head, ";base64")
	mediaType, _, _ = strings.Cut(head, ";")
	mediaType = strings.ToLower(strings.TrimSpace(mediaType))
	switch {
	case !ok:
		return "", "", providers.Invalid(i.Param, i.Param+" must be a data URL (data:image/png;base64,…): the gateway does not fetch images.")
	case !hasData || !is64:
		return "", "", providers.Invalid(i.Param, i.Param+" is no data URL in base64: it must begin like data:image/png;base64, and go on with the data.")
	case mediaType != "" && !strings.HasPrefix(mediaType, "image/"):
		return "", "", providers.Invalid(i.Param, i.Param+" is of type "+mediaType+", which is no image.")
	}
	if base64, ok = standardBase64(data); !ok || base64 == "" {
		return "", "", providers.Invalid(i.Param, i.Param+" holds no valid base64.")
	}
	return mediaType, base64, nil
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
