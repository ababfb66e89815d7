package pixels

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"hash/crc32"
	"image"
	"image/jpeg"
	"image/png"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/image/webp"
)

func file(t testing.TB, name string) []byte {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	return data
}

var plenty = Limits{Pixels: 16 << 20, Decoders: 2, Memory: 64 << 20, Waiting: 8}

// quadrants are the colours of the picture that testdata/make.py draws.
var quadrants = [4][3]float64{{255, 0, 0}, {0, 200, 0}, {0, 0, 255}, {255, 255, 255}}

// TestPicture decodes every encoding of one picture, upright, into 6 x 4 pixels and
// finds its colours in the corners where they belong.
func TestPicture(t *testing.T) {
	grey := func(c [3]float64) [3]float64 {
		l := 0.299*c[0] + 0.587*c[1] + 0.114*c[2]
		return [3]float64{l, l, l}
	}
	for name, c := range map[string]struct {
		format Format
		off    float64 // allowed for what the encoder loses
		grey   bool
	}{
		"baseline.jpg": {JPEG, 4, false}, "sub420.jpg": {JPEG, 8, false}, "progressive.jpg": {JPEG, 8, false}, "grey.jpg": {JPEG, 4, true}, "cmyk.jpg": {JPEG, 8, false},
		"orientation1.jpg": {JPEG, 4, false}, "orientation2.jpg": {JPEG, 4, false}, "orientation3.jpg": {JPEG, 4, false}, "orientation4.jpg": {JPEG, 4, false},
		"orientation5.jpg": {JPEG, 4, false}, "orientation6.jpg": {JPEG, 4, false}, "orientation7.jpg": {JPEG, 4, false}, "orientation8.jpg": {JPEG, 4, false},
		"rgb.png": {PNG, 0.5, false}, "rgba.png": {PNG, 0.5, false}, "palette.png": {PNG, 3, false}, "grey.png": {PNG, 1, true}, "greyalpha.png": {PNG, 1, true},
		"orientation6.png": {PNG, 0.5, false}, "lossy.webp": {WebP, 24, false}, "lossless.webp": {WebP, 0.5, false}, "alpha.webp": {WebP, 24, false}, "orientation8.webp": {WebP, 24, false},
	} {
		t.Run(name, func(t *testing.T) {
			data := file(t, name)
			info, err := Inspect(data)
			if err != nil {
				t.Fatal(err)
			}
			if w, h := info.Size(); w != 24 || h != 16 || info.Format != c.format {
				t.Fatalf("%v, %d x %d", info, w, h)
			}
			spec := Spec{Width: 6, Height: 4, Scale: 1}
			dst := make([]byte, spec.Size())
			if _, err := NewPool(plenty).Tensor(t.Context(), data, &spec, dst); err != nil {
				t.Fatal(err)
			}
			at := func(x, y, c int) float64 {
				return float64(math.Float32frombits(binary.LittleEndian.Uint32(dst[4*(3*(6*y+x)+c):])))
			}
			for q, want := range quadrants {
				if c.grey {
					want = grey(want)
				}
				for channel := range 3 {
					if got := at(q%2*5, q/2*3, channel); math.Abs(got-want[channel]) > c.off {
						t.Errorf("quadrant %d, channel %d: %.1f, want %.1f", q, channel, got, want[channel])
					}
				}
			}
		})
	}
}

// TestBilinear compares with Pillow, which rounds to whole numbers after each of its
// two passes.
func TestBilinear(t *testing.T) {
	var reference map[string][]float64
	if err := json.Unmarshal(file(t, "bilinear.json"), &reference); err != nil {
		t.Fatal(err)
	}
	for size, want := range reference {
		var spec Spec
		if _, err := fmt.Sscanf(size, "%dx%d", &spec.Width, &spec.Height); err != nil {
			t.Fatal(err)
		}
		spec.Scale = 1
		dst := make([]byte, spec.Size())
		if _, err := NewPool(plenty).Tensor(t.Context(), file(t, "noise.png"), &spec, dst); err != nil {
			t.Fatal(err)
		}
		worst := 0.0
		for i, w := range want {
			got := float64(math.Float32frombits(binary.LittleEndian.Uint32(dst[4*i:])))
			worst = max(worst, math.Abs(got-w))
		}
		if worst > 1.01 || len(want) != spec.Size()/4 {
			t.Errorf("%s: off by %.2f", size, worst)
		}
	}
}

// pictureOf is 2 x 1 pixels, (10, 20, 30) and (250, 240, 230).
func pictureOf(t testing.TB) []byte {
	m := image.NewNRGBA(image.Rect(0, 0, 2, 1))
	copy(m.Pix, []byte{10, 20, 30, 255, 250, 240, 230, 0})
	var b bytes.Buffer
	if err := png.Encode(&b, m); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestLayouts(t *testing.T) {
	half := func(v float32) []byte { return binary.LittleEndian.AppendUint16(nil, Half(v)) }
	brain := func(v float32) []byte { return binary.LittleEndian.AppendUint16(nil, Brain(v)) }
	join := func(parts ...[]byte) []byte { return bytes.Join(parts, nil) }
	floats := func(v ...float32) (b []byte) {
		for _, f := range v {
			b = binary.LittleEndian.AppendUint32(b, math.Float32bits(f))
		}
		return b
	}
	for name, c := range map[string]struct {
		spec Spec
		want []byte
	}{
		"rows of pixels":        {Spec{Type: Uint8}, []byte{10, 20, 30, 250, 240, 230}},
		"planes":                {Spec{Type: Uint8, Planar: true}, []byte{10, 250, 20, 240, 30, 230}},
		"blue first":            {Spec{Type: Uint8, Colours: BGR}, []byte{30, 20, 10, 230, 240, 250}},
		"grey":                  {Spec{Type: Uint8, Colours: Grey}, []byte{18, 242}},
		"signed":                {Spec{Type: Int8, Mean: []float64{128, 128, 128}}, []byte{0x8a, 0x94, 0x9e, 122, 112, 102}},
		"floats from 0 to 1":    {Spec{}, floats(10./255, 20./255, 30./255, 250./255, 240./255, 230./255)},
		"mean and deviation":    {Spec{Scale: 1, Mean: []float64{10, 10, 10}, Std: []float64{2, 5, 10}}, floats(0, 2, 2, 120, 46, 22)},
		"per channel of planes": {Spec{Scale: 1, Planar: true, Mean: []float64{0, 10, 30}, Std: []float64{2, 5, 10}}, floats(5, 125, 2, 46, 0, 20)},
		"half":                  {Spec{Type: Float16, Scale: 1}, join(half(10), half(20), half(30), half(250), half(240), half(230))},
		"brain":                 {Spec{Type: BFloat16, Scale: 1}, join(brain(10), brain(20), brain(30), brain(250), brain(240), brain(230))},
		"letterbox":             {Spec{Type: Uint8, Colours: Grey, Height: 3, Fit: Letterbox, Pad: 114}, []byte{114, 114, 18, 242, 114, 114}},
		"letterbox in planes":   {Spec{Type: Uint8, Planar: true, Height: 3, Fit: Letterbox, Pad: 7}, []byte{7, 7, 10, 250, 7, 7, 7, 7, 20, 240, 7, 7, 7, 7, 30, 230, 7, 7}},
	} {
		t.Run(name, func(t *testing.T) {
			spec := c.spec
			spec.Width, spec.Height = 2, max(spec.Height, 1)
			if err := spec.Check(); err != nil {
				t.Fatal(err)
			}
			got := make([]byte, spec.Size())
			if _, err := NewPool(plenty).Tensor(t.Context(), pictureOf(t), &spec, got); err != nil {
				t.Fatal(err)
			}
			if len(got) != len(c.want) {
				t.Fatalf("%d bytes, want %d", len(got), len(c.want))
			}
			if spec.Type == Float32 {
				for i := 0; i < len(got); i += 4 {
					g, w := math.Float32frombits(binary.LittleEndian.Uint32(got[i:])), math.Float32frombits(binary.LittleEndian.Uint32(c.want[i:]))
					if math.Abs(float64(g-w)) > 1e-4 {
						t.Errorf("element %d: %v, want %v", i/4, g, w)
					}
				}
			} else if !bytes.Equal(got, c.want) {
				t.Errorf("got %v, want %v", got, c.want)
			}
		})
	}
}

// TestPlacement leads points of the tensor back into the image.
func TestPlacement(t *testing.T) {
	for name, c := range map[string]struct {
		spec           Spec
		x, y           float64
		wantX, wantY   float64
		width, height_ int
	}{
		"stretch":          {Spec{Width: 100, Height: 100}, 50, 25, 320, 120, 640, 480},
		"crop":             {Spec{Width: 100, Height: 100, Fit: Crop}, 50, 50, 320, 240, 640, 480},
		"crop, corner":     {Spec{Width: 100, Height: 100, Fit: Crop}, 0, 0, 80, 0, 640, 480},
		"crop, ratio":      {Spec{Width: 100, Height: 100, Fit: Crop, CropRatio: 0.5}, 0, 0, 200, 120, 640, 480},
		"letterbox":        {Spec{Width: 640, Height: 640, Fit: Letterbox}, 320, 80, 320, 0, 640, 480},
		"letterbox, bar":   {Spec{Width: 640, Height: 640, Fit: Letterbox}, 700, 10, 640, 0, 640, 480},
		"letterbox, scale": {Spec{Width: 64, Height: 64, Fit: Letterbox}, 32, 32, 320, 240, 640, 480},
	} {
		p, _ := c.spec.place(c.width, c.height_)
		if x, y := p.ToImage(c.x, c.y); math.Abs(x-c.wantX) > 1e-9 || math.Abs(y-c.wantY) > 1e-9 {
			t.Errorf("%s: (%v, %v), want (%v, %v)", name, x, y, c.wantX, c.wantY)
		}
	}
}

// bomb is a PNG that claims a size and holds nothing.
func bomb(width, height uint32) []byte {
	b := []byte(pngStart + "\x00\x00\x00\x0dIHDR")
	b = binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint32(b, width), height)
	b = append(b, 8, 6, 0, 0, 0)
	return binary.BigEndian.AppendUint32(b, crc32.ChecksumIEEE(b[12:]))
}

// TestRefused lists what no decoder is let near, and what decoding finds.
func TestRefused(t *testing.T) {
	progressive, lossy, alpha := file(t, "progressive.jpg"), file(t, "lossy.webp"), file(t, "alpha.webp")
	at := bytes.LastIndex(progressive, []byte{0xff, markSOS})
	scans := append(bytes.Clone(progressive[:at]), bytes.Repeat(progressive[at:len(progressive)-2], 100)...)
	lying := bytes.Clone(alpha)
	copy(lying[24:], []byte{0, 0, 0, 0, 0, 0}) // a canvas of 1 x 1
	for name, c := range map[string]struct {
		data []byte
		says string
	}{
		"nothing":               {nil, "no data"},
		"a GIF":                 {file(t, "picture.gif"), "but a GIF"},
		"a page":                {[]byte("<!DOCTYPE html><html>"), "but HTML"},
		"a video":               {[]byte("\x00\x00\x00\x20ftypavif...."), "AVIF"},
		"text":                  {[]byte("hello, I am an image"), "no JPEG, PNG or WebP"},
		"a bomb":                {bomb(20000, 20000), "megapixels"},
		"a long bomb":           {bomb(1<<30, 1<<30), "no side"},
		"a flat one":            {bomb(100000, 1), "no side"},
		"no pixels":             {bomb(0, 7), "no pixels"},
		"negative":              {bomb(1<<31, 1), "damaged"},
		"a header only":         {bomb(10, 10), "truncated"},
		"a broken checksum":     {append(bomb(10, 10)[:29], 1, 2, 3, 4), "damaged"},
		"half a PNG":            {file(t, "noise.png")[:300], "truncated"},
		"a PNG's beginning":     {file(t, "noise.png")[:20], "truncated"},
		"half a JPEG":           {file(t, "baseline.jpg")[:700], "truncated"},
		"a JPEG's beginning":    {file(t, "baseline.jpg")[:60], "truncated"},
		"a JPEG that only ends": {[]byte("\xff\xd8\xff\xd9"), "no frame header"},
		"scans without end":     {scans, "scans"},
		"half a WebP":           {lossy[:70], "truncated"},
		"an animation":          {file(t, "animated.webp"), "animated"},
		"a lying canvas":        {lying, "claims 1 x 1"},
		"an empty WebP":         {[]byte("RIFF\x04\x00\x00\x00WEBP"), "no picture"},
	} {
		t.Run(name, func(t *testing.T) {
			spec := Spec{Width: 2, Height: 2}
			_, err := NewPool(plenty).Tensor(t.Context(), c.data, &spec, make([]byte, spec.Size()))
			if err == nil || !strings.Contains(err.Error(), c.says) {
				t.Errorf("%v, want %q", err, c.says)
			}
		})
	}
}

func TestCheckType(t *testing.T) {
	jpg, pic := file(t, "baseline.jpg"), file(t, "rgb.png")
	for name, c := range map[string]struct {
		mediaType string
		data      []byte
		says      string
	}{
		"jpeg":           {"image/jpeg", jpg, ""},
		"jpg":            {"image/jpg", jpg, ""},
		"png":            {"image/png", pic, ""},
		"webp":           {"image/webp", file(t, "lossy.webp"), ""},
		"without a type": {"", pic, ""},
		"another type":   {"image/png", jpg, "declared as image/png, but the data is a JPEG"},
		"a GIF":          {"image/gif", file(t, "picture.gif"), "not supported"},
		"a GIF in guise": {"image/png", file(t, "picture.gif"), "but a GIF"},
		"empty":          {"image/png", nil, "no data"},
	} {
		err := CheckType(c.mediaType, c.data)
		if c.says == "" && err != nil || c.says != "" && (err == nil || !strings.Contains(err.Error(), c.says)) {
			t.Errorf("%s: %v, want %q", name, err, c.says)
		}
	}
}

func TestHalf(t *testing.T) {
	for h := range 1 << 16 {
		if v := FromHalf(uint16(h)); v == v && Half(v) != uint16(h) {
			t.Fatalf("%#04x is %v and comes back as %#04x", h, v, Half(v))
		}
		if v := FromBrain(uint16(h)); v == v && Brain(v) != uint16(h) {
			t.Fatalf("brain %#04x is %v and comes back as %#04x", h, v, Brain(v))
		}
	}
	for v, want := range map[float32]uint16{1: 0x3c00, 65504: 0x7bff, 65519: 0x7bff, 65520: 0x7c00, 1e-8: 0, 6e-8: 1, -2: 0xc000, 1.0 / 3: 0x3555, 2049: 0x6800, 2051: 0x6802} {
		if Half(v) != want {
			t.Errorf("%v is %#04x, want %#04x", v, Half(v), want)
		}
	}
	if FromHalf(Half(float32(math.NaN()))) == FromHalf(0x3c00) || Brain(float32(math.NaN()))&0x7fff <= 0x7f80 {
		t.Error("not a number became one")
	}
}

func seeds(f *testing.F) {
	names, err := filepath.Glob("testdata/*.*")
	if err != nil {
		f.Fatal(err)
	}
	for _, name := range names {
		if ext := filepath.Ext(name); ext == ".jpg" || ext == ".png" || ext == ".webp" || ext == ".gif" {
			f.Add(file(f, filepath.Base(name)))
		}
	}
	f.Add(bomb(1<<20, 1<<20))
}

// FuzzInspect holds the header readers against the decoders: what they let through has
// the size that the decoder takes it for, and nothing that a decoder can read is refused
// but for a reason of ours.
func FuzzInspect(f *testing.F) {
	seeds(f)
	f.Fuzz(func(t *testing.T, data []byte) {
		info, err := Inspect(data)
		if err != nil {
			return
		}
		if info.Width < 1 || info.Height < 1 || info.Width > maxSide || info.Height > maxSide || info.Orientation < 1 || info.Orientation > 8 || info.memory <= 0 {
			t.Fatalf("let through: %+v", info)
		}
		config := map[Format]func() (image.Config, error){
			JPEG: func() (image.Config, error) { return jpeg.DecodeConfig(bytes.NewReader(data)) },
			PNG:  func() (image.Config, error) { return png.DecodeConfig(bytes.NewReader(data)) },
			WebP: func() (image.Config, error) { return webp.DecodeConfig(bytes.NewReader(data)) },
		}[info.Format]
		if c, err := config(); err == nil && (c.Width != info.Width || c.Height != info.Height) {
			t.Fatalf("the header says %d x %d, the decoder %d x %d", info.Width, info.Height, c.Width, c.Height)
		}
	})
}

// FuzzTensor decodes whatever passes, and must neither panic nor write elsewhere.
func FuzzTensor(f *testing.F) {
	seeds(f)
	pool := NewPool(Limits{Pixels: 1 << 16, Decoders: 2, Memory: 8 << 20, Waiting: 64})
	f.Fuzz(func(t *testing.T, data []byte) {
		spec := Spec{Width: 3, Height: 5, Type: Uint8, Fit: Fit(len(data) % 3)}
		dst := make([]byte, spec.Size()+1)
		_, err := pool.Tensor(context.Background(), data, &spec, dst[:spec.Size():spec.Size()])
		if dst[spec.Size()] != 0 {
			t.Fatal("wrote behind the tensor")
		}
		if err != nil && err.Error() == "" {
			t.Fatal("an error without words")
		}
	})
}

func BenchmarkTensor(b *testing.B) {
	m := image.NewYCbCr(image.Rect(0, 0, 1920, 1080), image.YCbCrSubsampleRatio420)
	for i := range m.Y {
		m.Y[i] = byte(i * 7)
	}
	var encoded bytes.Buffer
	if err := jpeg.Encode(&encoded, m, nil); err != nil {
		b.Fatal(err)
	}
	pool, spec := NewPool(plenty), Spec{Width: 224, Height: 224, Planar: true}
	dst := make([]byte, spec.Size())
	b.Run("decode+render", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := pool.Tensor(b.Context(), encoded.Bytes(), &spec, dst); err != nil {
				b.Fatal(err)
			}
		}
	})
	info, err := Inspect(encoded.Bytes())
	if err != nil {
		b.Fatal(err)
	}
	b.Run("render", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			spec.render(m, info, dst)
		}
	})
	b.Run("inspect", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			_, _ = Inspect(encoded.Bytes())
		}
	})
}
