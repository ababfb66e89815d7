"""Makes the images of this folder, and what Pillow makes of one of them.

    pip install pillow && python make.py
"""
import json

from PIL import Image

W, H = 24, 16


def picture():
    """Four quadrants, each its own colour: red, green / blue, white."""
    image = Image.new("RGB", (W, H))
    for y in range(H):
        for x in range(W):
            image.putpixel((x, y), ((255, 0, 0), (0, 200, 0), (0, 0, 255), (255, 255, 255))[2 * (y >= H // 2) + (x >= W // 2)])
    return image


def orient(image, how):
    """Stores the picture so that the EXIF orientation `how` shows it upright."""
    undo = {2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM,
            5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_90, 7: Image.Transpose.TRANSVERSE, 8: Image.Transpose.ROTATE_270}
    exif = Image.Exif()
    exif[0x0112] = how
    return image.transpose(undo[how]) if how in undo else image, exif


image = picture()
image.save("baseline.jpg", quality=95, subsampling=0)
image.save("sub420.jpg", quality=95, subsampling=2)
image.save("progressive.jpg", quality=95, progressive=True)
image.convert("L").save("grey.jpg", quality=95)
image.convert("CMYK").save("cmyk.jpg", quality=95)
for how in range(1, 9):
    stored, exif = orient(image, how)
    stored.save(f"orientation{how}.jpg", quality=95, subsampling=0, exif=exif)
image.save("rgb.png")
image.convert("RGBA").save("rgba.png")
image.convert("P").save("palette.png")
image.convert("L").save("grey.png")
image.convert("1").save("bits.png")
Image.merge("LA", (image.convert("L"), Image.new("L", (W, H), 128))).save("greyalpha.png")
stored, exif = orient(image, 6)
stored.save("orientation6.png", exif=exif)
image.save("lossy.webp", quality=95)
image.save("lossless.webp", lossless=True)
translucent = image.convert("RGBA")
translucent.putalpha(Image.linear_gradient("L").resize((W, H)))
translucent.save("alpha.webp", quality=95)
stored, exif = orient(image, 8)
stored.save("orientation8.webp", quality=95, exif=exif)
image.save("animated.webp", save_all=True, append_images=[image.convert("L").convert("RGB")])
image.save("picture.gif")

noise = Image.new("RGB", (17, 11))
state = 1
for y in range(11):
    for x in range(17):
        rgb = []
        for _ in range(3):
            state = (1103515245 * state + 12345) % 2**31
            rgb.append(state >> 23)
        noise.putpixel((x, y), tuple(rgb))
noise.save("noise.png")
reference = {}
for width, height in ((5, 3), (17, 11), (1, 1), (34, 22), (40, 4), (3, 30)):
    resized = noise.resize((width, height), Image.Resampling.BILINEAR)
    reference[f"{width}x{height}"] = list(resized.tobytes())
with open("bilinear.json", "w") as out:
    json.dump(reference, out, separators=(",", ":"))
    out.write("\n")
