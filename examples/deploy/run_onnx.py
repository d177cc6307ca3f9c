"""Classify pictures with a file that `nettailor export --format onnx` wrote. Needs onnxruntime, numpy and Pillow only.

    python run_onnx.py flowers.onnx photo.jpg ... [--top-k 3]

Prints CSV, as `nettailor predict --format csv` does, with the same figures to rounding. A picture that can't be read is
a row with an error, and the exit code is 2. Take what you need: `read_picture` is what has to be the same in your
program.
"""

import argparse
import contextlib
import csv
import json
import re
import sys

import numpy as np
import onnxruntime
from PIL import Image, ImageOps

FORMATS = ("JPEG", "PNG", "BMP", "WEBP", "GIF", "TIFF")
BATCH = 32


def read_picture(path: str, resize: int, size: int) -> np.ndarray:
    """What the network takes: uint8 (size, size, 3), RGB.

    Upright, on white, the short side brought to `resize` pixels (bilinear, antialiased), the middle cut out. Raises
    whatever Pillow does for a damaged file.
    """
    with Image.open(path, formats=FORMATS) as image:
        image.draft(None, (2 * resize, 2 * resize))  # large JPEGs come at a half, a quarter or an eighth: much faster
        image.load()
        upright = image
        with contextlib.suppress(Exception):  # a damaged EXIF block: as it lies
            upright = ImageOps.exif_transpose(image)
        picture = to_rgb(upright)
    short = min(picture.size)
    left, top = (picture.width - short) / 2, (picture.height - short) / 2
    box = (left, top, left + short, top + short)
    square = np.asarray(picture.resize((resize, resize), Image.Resampling.BILINEAR, box=box))
    start = (resize - size) // 2
    return square[start : start + size, start : start + size]


def to_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "F" or image.mode.startswith("I"):  # 16 bits or more, which Pillow itself would clip at 255
        values = np.asarray(image)
        if values.dtype.kind == "f":
            values = np.clip(values * (255.0 if values.max() <= 1 else 1.0), 0, 255)
        else:
            values = values / 257.0
        return Image.fromarray(np.rint(values).astype(np.uint8)).convert("RGB")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    return image.convert("RGB")


def shown(text: str) -> str:
    """Names come from files: what a terminal would act on is an escape, what a spreadsheet would has an apostrophe."""
    text = "".join(
        c if c.isprintable() else c.encode("unicode_escape", "backslashreplace").decode("ascii") for c in text
    )
    return f"'{text}" if text.startswith(tuple("=+-@")) and not re.fullmatch(r"[+-]?\d+(\.\d+)?", text) else text


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("pictures", nargs="+")
    parser.add_argument("--top-k", type=int, default=3)
    options = parser.parse_args()

    session = onnxruntime.InferenceSession(options.model, providers=["CPUExecutionProvider"])
    document = json.loads(session.get_modelmeta().custom_metadata_map["nettailor"])
    classes, preprocessing = document["classes"], document["preprocessing"]
    if document["output"]["name"] != "probabilities":
        parser.error(f"{options.model} gives {document['output']['name']}: export it without --logits")
    top_k = min(options.top_k, len(classes))
    table = csv.writer(sys.stdout, lineterminator="\n")
    columns = [f"{what}_{k}" for k in range(1, top_k + 1) for what in ("class", "probability")]
    table.writerow(["image", *columns, "error"])

    bad = 0
    for start in range(0, len(options.pictures), BATCH):
        paths, pictures = [], []
        for path in options.pictures[start : start + BATCH]:
            try:
                pictures.append(read_picture(path, preprocessing["resize"], preprocessing["size"]))
                paths.append(path)
            except Exception as error:  # noqa: BLE001 - whatever a damaged file makes Pillow stumble over
                table.writerow([shown(path), *[""] * len(columns), shown(str(error))])
                bad += 1
        if not pictures:
            continue
        (probabilities,) = session.run(["probabilities"], {"images": np.stack(pictures)})
        for path, row in zip(paths, probabilities, strict=True):
            best = np.argsort(-row, kind="stable")[:top_k]
            named = (cell for index in best for cell in (shown(classes[index]), f"{row[index]:.6f}"))
            table.writerow([shown(path), *named, ""])
    return 2 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
