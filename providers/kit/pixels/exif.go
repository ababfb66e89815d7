package pixels

import (
	"bytes"
	"encoding/binary"
)

// exifStart stands before the TIFF structure in a JPEG's APP1 segment.
const exifStart = "Exif\x00\x00"

// orientation reads the tag 0x0112 of the first directory of a TIFF structure (EXIF
// 2.32, section 4.6.4). Data that is broken or does not say is upright.
func orientation(tiff []byte) int {
	tiff = bytes.TrimPrefix(tiff, []byte(exifStart)) // some writers of WebP repeat it
	if len(tiff) < 8 {
		return 1
	}
	var order binary.ByteOrder
	switch string(tiff[:4]) {
	case "II*\x00":
		order = binary.LittleEndian
	case "MM\x00*":
		order = binary.BigEndian
	default:
		return 1
	}
	at := int64(order.Uint32(tiff[4:]))
	if at < 8 || at+2 > int64(len(tiff)) {
		return 1
	}
	entries := tiff[at+2:]
	for n := order.Uint16(tiff[at:]); n > 0 && len(entries) >= 12; n-- {
		const tag, short = 0x0112, 3
		if order.Uint16(entries) == tag && order.Uint16(entries[2:]) == short {
			if v := int(order.Uint16(entries[8:])); v >= 1 && v <= 8 {
				return v
			}
			return 1
		}
		entries = entries[12:]
	}
	return 1
}
