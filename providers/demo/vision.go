package demo

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"image"
	_ "image/gif"  // the formats of image.Decode
	_ "image/jpeg" // are those that are
	_ "image/png"  // imported here
	"net/url"
	"strings"

	"sluice/providers"
)

// Bounds of what is looked at.
const (
	maxImages = 16
	maxPixels = 4 << 20
	maxGrid   = 256 // sampled columns and rows of one image
)

// look describes the images of the user's messages.
func (a *ask) look(ctx context.Context, pl *plan) error {
	var urls []string
	for _, m := range a.messages {
		if m.Role == "user" {
			urls = append(urls, m.Content.images...)
		}
	}
	if len(urls) > maxImages {
		return providers.Invalid("messages", fmt.Sprintf("The demo looks at no more than %d images at once.", maxImages))
	}
	var lines []string
	for i, u := range urls {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		line, err := describeImage(u)
		if err != nil {
			return providers.Invalid("messages", fmt.Sprintf("Image %d: %s.", i+1, err))
		}
		lines = append(lines, fmt.Sprintf("Image %d: %s.", i+1, line))
	}
	a.fill(pl, func(string, int) string { return visionText(lines) })
	return nil
}

func visionText(lines []string) string {
	switch len(lines) {
	case 0:
		return "This is Sluice's built-in vision demo. I see no image: send one as an image_url part with a data URL (JPEG, PNG or GIF)."
	case 1:
		return "This is Sluice's built-in vision demo. I see 1 image. " + lines[0]
	default:
		return fmt.Sprintf("This is Sluice's built-in vision demo. I see %d images. %s", len(lines), strings.Join(lines, " "))
	}
}

func describeImage(u string) (string, error) {
	if !strings.HasPrefix(strings.ToLower(u[:min(len(u), 5)]), "data:") {
		return "it is somewhere else, and the demo fetches nothing; send it as a data URL", nil
	}
	mime, data, err := decodeDataURL(u)
	if err != nil {
		return "", err
	}
	c, format, err := image.DecodeConfig(bytes.NewReader(data))
	if err != nil {
		if known := mime == "image/jpeg" || mime == "image/png" || mime == "image/gif"; known {
			return "", fmt.Errorf("the data is not a readable %s", mime)
		}
		return fmt.Sprintf("%s, %d bytes, which is no format that the demo can read; send JPEG, PNG or GIF", mime, len(data)), nil
	}
	about := fmt.Sprintf("image/%s, %d bytes, %d x %d pixels", format, len(data), c.Width, c.Height)
	if c.Width < 1 || c.Height < 1 || int64(c.Width)*int64(c.Height) > maxPixels {
		return about + ", more than the demo looks into", nil
	}
	img, _, err := image.Decode(bytes.NewReader(data))
	if err != nil {
		return "", fmt.Errorf("the image/%s is damaged", format)
	}
	r, g, b := meanColour(img)
	return fmt.Sprintf("%s, mean colour #%02x%02x%02x (%s)", about, r, g, b, colourName(r, g, b)), nil
}

// decodeDataURL reads RFC 2397.
func decodeDataURL(u string) (mime string, data []byte, err error) {
	head, body, ok := strings.Cut(u[len("data:"):], ",")
	if !ok {
		return "", nil, errors.New("the data URL has no comma")
	}
	mime, params, _ := strings.Cut(head, ";")
	mime = strings.ToLower(mime)
	if params != "base64" && !strings.HasSuffix(params, ";base64") {
		text, err := url.PathUnescape(body)
		if err != nil {
			return "", nil, errors.New("the data URL is not encoded as one")
		}
		return mime, []byte(text), nil
	}
	data, err = base64.RawStdEncoding.DecodeString(strings.TrimRight(body, "="))
	if err != nil {
		return "", nil, errors.New("the data URL is not valid base64")
	}
	return mime, data, nil
}

// meanColour averages a grid of pixels, with alpha over black.
func meanColour(img image.Image) (r, g, b uint8) {
	var sum [3]uint64
	box := img.Bounds()
	count := uint64(0)
	for y := box.Min.Y; y < box.Max.Y; y += 1 + box.Dy()/maxGrid {
		for x := box.Min.X; x < box.Max.X; x += 1 + box.Dx()/maxGrid {
			cr, cg, cb, _ := img.At(x, y).RGBA()
			sum[0] += uint64(cr >> 8)
			sum[1] += uint64(cg >> 8)
			sum[2] += uint64(cb >> 8)
			count++
		}
	}
	count = max(count, 1)
	return uint8(sum[0] / count), uint8(sum[1] / count), uint8(sum[2] / count)
}

var colours = [...]struct {
	name    string
	r, g, b int
}{
	{"black", 0, 0, 0}, {"white", 255, 255, 255}, {"grey", 128, 128, 128}, {"red", 220, 20, 20}, {"green", 20, 160, 20},
	{"blue", 20, 20, 220}, {"yellow", 240, 230, 20}, {"orange", 240, 140, 20}, {"purple", 130, 20, 130}, {"pink", 250, 160, 190},
	{"brown", 130, 80, 40}, {"turquoise", 40, 200, 200},
}

// colourName is the nearest of a dozen names.
func colourName(r, g, b uint8) string {
	best, name := 1<<30, ""
	for _, c := range colours {
		dr, dg, db := c.r-int(r), c.g-int(g), c.b-int(b)
		if d := dr*dr + dg*dg + db*db; d < best {
			best, name = d, c.name
		}
	}
	return name
}
