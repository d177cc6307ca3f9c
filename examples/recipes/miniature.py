"""The data sets in miniature: a few drawn pictures in every set's own download format, for trying the recipes.

    python examples/recipes/miniature.py FOLDER       # FOLDER/source/SET, laid out by the readers as FOLDER/data/SET

Three classes each, told apart by colour. The pictures mean nothing, nor does an accuracy on them.
"""

from __future__ import annotations

import json
import struct
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import common
import cub200
import decathlon
import flowers102
import numpy as np
import sketch
import stanford_cars
import svhn
import voc2012
import wikiart
from PIL import Image

COLOURS = ((220, 40, 40), (40, 200, 40), (40, 40, 220))
TRAIN, TEST = 8, 4
"""Pictures of every class."""


def picture(label: int, index: int, width: int = 48, height: int = 48) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Noise in the colour of a class, (height, width, 3)."""
    noise = np.random.default_rng([label, index]).integers(-30, 30, (height, width, 3))
    return np.clip(np.array(COLOURS[label % len(COLOURS)]) + noise, 0, 255).astype(np.uint8)


def save(path: Path, label: int, index: int, width: int = 48, height: int = 48) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture(label, index, width, height)).save(path)


def records(*rows: dict[str, Any]) -> np.ndarray[Any, Any]:
    """A MATLAB struct array (1, N)."""
    made = np.zeros((1, len(rows)), dtype=[(key, object) for key in rows[0]])
    for index, row in enumerate(rows):
        made[0, index] = tuple(row.values())
    return made


def savemat(path: Path, document: dict[str, Any]) -> None:
    from scipy.io import savemat as save_matlab

    path.parent.mkdir(parents=True, exist_ok=True)
    save_matlab(path, document)


def _lines(path: Path, lines: Sequence[object]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines))


# the sets


def draw_svhn(source: Path) -> None:
    for split, count in (("train", TRAIN), ("test", TEST)):
        rows = [(label, index) for index in range(count) for label in (1, 2, 10)]
        pixels = np.stack([picture(label % 10, index, 32, 32) for label, index in rows], axis=-1)
        labels = np.array([[label] for label, _ in rows], dtype=np.uint8)
        savemat(source / f"{split}_32x32.mat", {"X": pixels, "y": labels})


def draw_flowers102(source: Path) -> None:
    """Pictures 1 to 36: labels 1, 2, 3 in turn; every fourth is valid, every third of the rest test."""
    numbers = range(1, 37)
    for number in numbers:
        save(source / "jpg" / f"image_{number:05}.jpg", (number - 1) % 3, number, 60, 50)
    savemat(source / "imagelabels.mat", {"labels": np.array([[(number - 1) % 3 + 1 for number in numbers]])})
    valid = [number for number in numbers if (number - 1) // 3 % 4 == 3]
    test = [number for number in numbers if (number - 1) // 3 % 4 == 2]
    train = [number for number in numbers if number not in valid + test]
    savemat(source / "setid.mat", {"trnid": np.array([train]), "valid": np.array([valid]), "tstid": np.array([test])})


VOC_CLASSES = ("cat", "dog", "train")


def draw_voc2012(source: Path) -> None:
    """Ten pictures of two objects each in train.txt, four in val.txt."""
    for image_set, count, year in (("train", 3 * TRAIN, 2008), ("val", 2 * TEST, 2009)):
        names = [f"{year}_{index:06}" for index in range(count)]
        for index, name in enumerate(names):
            save(source / "JPEGImages" / f"{name}.jpg", index % 3, index, 100, 80)
            rows = [
                voc_object(VOC_CLASSES[index % 3], (11, 11, 60, 50)),
                voc_object(VOC_CLASSES[index % 3], (51, 21, 100, 80), truncated=1),
                voc_object(VOC_CLASSES[(index + 1) % 3], (1, 1, 20, 20), difficult=1),
            ]
            _lines(source / "Annotations" / f"{name}.xml", [voc_annotation(name, 100, 80, rows)])
        _lines(source / "ImageSets" / "Main" / f"{image_set}.txt", names)


def voc_annotation(name: str, width: int, height: int, objects: Sequence[str]) -> str:
    return (
        f"<annotation><folder>VOC2012</folder><filename>{name}.jpg</filename><source><database>drawn</database></source>"
        f"<size><width>{width}</width><height>{height}</height><depth>3</depth></size><segmented>0</segmented>"
        f"{''.join(objects)}</annotation>"
    )


def voc_object(name: str, box: Sequence[float], truncated: int = 0, difficult: int = 0, parts: str = "") -> str:
    corners = "".join(
        f"<{key}>{value}</{key}>" for key, value in zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True)
    )
    return (
        f"<object><name>{name}</name><pose>Unspecified</pose><truncated>{truncated}</truncated><occluded>0</occluded>"
        f"{parts}<bndbox>{corners}</bndbox><difficult>{difficult}</difficult></object>"
    )


def draw_cub200(source: Path) -> None:
    classes = ("001.Black_footed_Albatross", "002.Laysan_Albatross", "003.Sooty_Albatross")
    rows = [(label, index) for label in range(3) for index in range(TRAIN + TEST)]
    names = [f"{classes[label]}/{classes[label][4:]}_{index:04}_{label}.jpg" for label, index in rows]
    for name, (label, index) in zip(names, rows, strict=True):
        save(source / "images" / name, label, index, 60, 50)
    _lines(source / "classes.txt", [f"{label + 1} {name}" for label, name in enumerate(classes)])
    _lines(source / "images.txt", [f"{number} {name}" for number, name in enumerate(names, 1)])
    _lines(source / "image_class_labels.txt", [f"{number} {label + 1}" for number, (label, _) in enumerate(rows, 1)])
    _lines(source / "train_test_split.txt", [f"{number} {int(i < TRAIN)}" for number, (_, i) in enumerate(rows, 1)])
    _lines(source / "bounding_boxes.txt", [f"{number} 10.0 5.0 30.0 40.0" for number in range(1, len(rows) + 1)])


CAR_CLASSES = ("AM General Hummer SUV 2000", "Ram C/V Cargo Van Minivan 2012", "smart fortwo Convertible 2012")
_CAR_BOX = {"bbox_x1": 6, "bbox_y1": 11, "bbox_x2": 55, "bbox_y2": 40}


def draw_stanford_cars(source: Path) -> None:
    """The form with a devkit."""
    for split, count, file in (
        ("train", TRAIN, "devkit/cars_train_annos.mat"),
        ("test", TEST, "cars_test_annos_withlabels.mat"),
    ):
        rows = []
        for number in range(1, 3 * count + 1):
            label = (number - 1) % 3
            rows.append({**_CAR_BOX, "class": label + 1, "fname": f"{number:05}.jpg"})
            save(source / f"cars_{split}" / f"{number:05}.jpg", label, number, 60, 50)
        savemat(source / file, {"annotations": records(*rows)})
    savemat(source / "devkit" / "cars_meta.mat", {"class_names": np.array([CAR_CLASSES], dtype=object)})


def draw_stanford_cars_in_one_file(source: Path) -> None:
    rows = []
    for number in range(1, 3 * (TRAIN + TEST) + 1):
        label, path = (number - 1) % 3, f"car_ims/{number:06}.jpg"
        rows.append({"relative_im_path": path, **_CAR_BOX, "class": label + 1, "test": int(number > 3 * TRAIN)})
        save(source / path, label, number, 60, 50)
    savemat(
        source / "cars_annos.mat",
        {"annotations": records(*rows), "class_names": np.array([CAR_CLASSES], dtype=object)},
    )


WIKIART_LISTS = "lists"


def draw_wikiart(source: Path) -> None:
    classes = ("Baroque", "Cubism", "Pop_Art")
    for file, indices in (("style_train.csv", range(TRAIN)), ("style_val.csv", range(TRAIN, TRAIN + TEST))):
        rows = [(f"{name}/painter_work-{index}.jpg", label) for label, name in enumerate(classes) for index in indices]
        for path, label in rows:
            save(source / path, label, len(path) + label, 70, 50)
        _lines(source / WIKIART_LISTS / file, [f"{path},{label}" for path, label in rows])
    _lines(source / WIKIART_LISTS / "style_class.txt", [f"{label} {name}" for label, name in enumerate(classes)])


def draw_sketch(source: Path) -> None:
    for label, name in enumerate(("airplane", "alarm clock", "angel")):
        for index in range(10):
            save(source / name / f"{label * 80 + index + 1}.png", label, index, 64, 64)


DECATHLON_STATISTICS = "decathlon_mean_std.pickle"


def draw_decathlon(source: Path, names: Sequence[str], *, labelled_test: bool = False) -> None:
    """annotations/ and data/ of these sets, and the statistics as the challenge's authors pickled them."""
    statistics: dict[str, Any] = {}
    for place, name in enumerate(names, 1):
        categories = [
            {"id": place * 10_000_000 + label, "name": f"{name}{label}", "supercategory": name} for label in (1, 2, 3)
        ]
        for part, count in (("train", TRAIN), ("val", TEST), *([("test", TEST)] if labelled_test else [])):
            images, annotations = [], []
            for index in range(3 * count):
                label, number = index % 3, place * 10_000_000 + len(part) * 1000 + index
                below = "" if part == "test" else f"{label + 1:04}/"
                file = f"data/{name}/{part}/{below}{index + 1:06}.jpg"
                save(source / file, label, number, 72 + 24 * (index % 2), 72)
                images.append({"id": number, "width": 72 + 24 * (index % 2), "height": 72, "file_name": file})
                annotations.append(
                    {"id": number, "image_id": number, "category_id": categories[label]["id"], "segmentation": [],
                     "area": 0, "bbox": [], "iscrowd": 0}
                )  # fmt: skip
            document = {
                "info": {"year": 2017, "version": 1, "description": "Decathlon"},
                "images": images, "annotations": annotations, "categories": categories, "licenses": [],
            }  # fmt: skip
            _lines(source / "annotations" / f"{name}_{part}.json", [json.dumps(document)])
        statistics[f"{name}mean"] = np.array([0.4, 0.5, 0.6]) if place % 2 else [0.4, 0.5, 0.6]
        statistics[f"{name}std"] = np.array([0.2, 0.25, 0.3]) if place % 2 else [0.2, 0.25, 0.3]
    (source / DECATHLON_STATISTICS).write_bytes(python2_pickle(statistics))


def python2_pickle(values: dict[str, Any]) -> bytes:
    """{name: list of floats or float64 array} as Python 2 writes it: protocol 2, bytes as strings (short ones).

    Python 3 pickles bytes in another way, so this is written by hand, as it stands in the challenge's own file.
    """

    def text(value: bytes) -> bytes:
        return b"U" + bytes([len(value)]) + value

    def array(numbers: np.ndarray[Any, Any]) -> bytes:
        made = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85" + text(b"b") + b"\x87R"
        kind = b"cnumpy\ndtype\n" + text(b"f8") + b"K\x00K\x01\x87R(K\x03" + text(b"<") + b"NNN"
        kind += 2 * b"J\xff\xff\xff\xff" + b"K\x00tb"
        shape = b"K" + bytes([len(numbers)]) + b"\x85"
        return made + b"(K\x01" + shape + kind + b"\x89" + text(numbers.astype("<f8").tobytes()) + b"tb"

    def listed(numbers: Sequence[float]) -> bytes:
        return b"](" + b"".join(b"G" + struct.pack(">d", number) for number in numbers) + b"e"

    items = (
        text(name.encode()) + (array(value) if isinstance(value, np.ndarray) else listed(value))
        for name, value in values.items()
    )
    return b"\x80\x02}(" + b"".join(items) + b"u."


# laid out

DRAWN: dict[str, Callable[[Path], None]] = {
    "svhn": draw_svhn,
    "flowers102": draw_flowers102,
    "voc2012": draw_voc2012,
    "cub200": draw_cub200,
    "stanford_cars": draw_stanford_cars,
    "wikiart": draw_wikiart,
    "sketch": draw_sketch,
}


def lay_out_sets(source: Path, data: Path, names: Sequence[str], size: int) -> None:
    """Draw SOURCE/SET and lay it out as DATA/SET by its reader, for pictures of `size` pixels; what is there stays."""
    readers: dict[str, tuple[common.Reader, dict[str, Any]]] = {
        "svhn": (svhn.read, {}),
        "flowers102": (flowers102.read, {}),
        "voc2012": (voc2012.read, {"balance": 12, "size": size}),
        "cub200": (cub200.read, {"size": size}),
        "stanford_cars": (stanford_cars.read, {"size": size}),
        "wikiart": (wikiart.read, {"lists": source / "wikiart" / WIKIART_LISTS}),
        "sketch": (sketch.read, {}),
    }
    for name in names:
        if not (data / name).exists():
            DRAWN[name](source / name)
            reader, options = readers[name]
            print(common.lay_out(reader, source / name, data / name, **options), flush=True)


def lay_out_decathlon(source: Path, data: Path, names: Sequence[str], size: None = None) -> None:
    """The same for sets of the decathlon, imagenet12 always among them; their sizes are their own."""
    names = [name for name in dict.fromkeys(("imagenet12", *names)) if not (data / name).exists()]
    if names:
        draw_decathlon(source, names)
        decathlon.lay_out(source, data, names, source / DECATHLON_STATISTICS)


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    lay_out_sets(folder / "source", folder / "data", list(DRAWN), 224)
    lay_out_decathlon(folder / "source" / "decathlon", folder / "data" / "decathlon", list(decathlon.SIZES))
