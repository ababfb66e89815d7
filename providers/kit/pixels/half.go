package pixels

import "math"

// Half rounds to IEEE 754 binary16, to nearest and to even.
func Half(v float32) uint16 {
	bits := math.Float32bits(v)
	sign := uint16(bits >> 16 & 0x8000)
	abs := bits & 0x7fffffff
	switch {
	case abs > 0x7f800000: // not a number
		return sign | 0x7e00
	case abs >= 0x477ff000: // rounds to more than 65504
		return sign | 0x7c00
	case abs < 0x38800000: // below 2^-14: subnormal
		m := math.Float32frombits(abs)
		return sign | uint16(math.RoundToEven(float64(m)*(1<<24)))
	default:
		abs += 0xfff + abs>>13&1
		return sign | uint16((abs-0x38000000)>>13)
	}
}

// FromHalf widens a binary16.
func FromHalf(h uint16) float32 {
	sign := uint32(h&0x8000) << 16
	exponent, fraction := uint32(h>>10&0x1f), uint32(h&0x3ff)
	switch exponent {
	case 0:
		v := float32(fraction) / (1 << 24)
		return math.Float32frombits(math.Float32bits(v) | sign)
	case 0x1f:
		return math.Float32frombits(sign | 0x7f800000 | fraction<<13)
	default:
		return math.Float32frombits(sign | (exponent+112)<<23 | fraction<<13)
	}
}

// Brain rounds to bfloat16, the upper half of a float32, to nearest and to even.
func Brain(v float32) uint16 {
	bits := math.Float32bits(v)
	if bits&0x7fffffff > 0x7f800000 {
		return uint16(bits>>16) | 0x40
	}
	return uint16((bits + 0x7fff + bits>>16&1) >> 16)
}

// FromBrain widens a bfloat16.
func FromBrain(b uint16) float32 { return math.Float32frombits(uint32(b) << 16) }
