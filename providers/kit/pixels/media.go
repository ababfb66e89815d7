package pixels

import (
	"fmt"
	"strings"
)

// CheckType reports data that is not of the declared media type; "" declares none.
func CheckType(mediaType string, data []byte) error {
	declared, known := FormatOf(mediaType)
	if !known && mediaType != "" {
		return fmt.Errorf("the type %.60q is not supported; send image/jpeg, image/png or image/webp", mediaType)
	}
	info, err := Inspect(data)
	if err != nil {
		return err
	}
	if known && info.Format != declared {
		return fmt.Errorf("it is declared as %s, but the data is a %s", mediaType, info.Format)
	}
	return nil
}

// IsImageURL reports whether a text is a data URL of an image.
func IsImageURL(s string) bool {
	const start = "data:image/"
	return len(s) >= len(start) && strings.EqualFold(s[:len(start)], start)
}
