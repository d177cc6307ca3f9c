"""Miniature archives in the true formats of what torchvision downloads, by the names under which it asks for them."""

from __future__ import annotations

import gzip
import io
import pickle
import struct
import tarfile
import zipfile
from collections.abc import Mapping
from typing import Any

import numpy as np
from PIL import Image
from scipy.io import savemat

Files = dict[str, bytes]


def image(value: int, kind: str = "JPEG", size: int = 8) -> bytes:
    """A gray picture of one value."""
    stream = io.BytesIO()
    Image.new("RGB", (size, size), (value, value, value)).save(stream, format=kind)
    return stream.getvalue()


def tar(files: Mapping[str, bytes]) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as archive:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return stream.getvalue()


def zipped(files: Mapping[str, bytes]) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return stream.getvalue()


def matlab(document: dict[str, Any]) -> bytes:
    stream = io.BytesIO()
    savemat(stream, document)
    return stream.getvalue()


def idx(array: np.ndarray[Any, Any]) -> bytes:
    """MNIST's format: two zeros, uint8, the number of dimensions, their lengths, the values."""
    head = bytes([0, 0, 8, array.ndim]) + b"".join(struct.pack(">I", length) for length in array.shape)
    return gzip.compress(head + array.astype(np.uint8).tobytes())


def svhn() -> Files:
    """Per split, pictures of value 20, 30, 200 with labels 2, 3 and 10, which is the digit 0."""
    values = np.array([20, 30, 200], dtype=np.uint8)
    document = {"X": np.broadcast_to(values, (32, 32, 3, 3)).copy(), "y": np.array([[2], [3], [10]], dtype=np.uint8)}
    return {f"{split}_32x32.mat": matlab(document) for split in ("train", "test")}


def flowers102() -> Files:
    """Six pictures of value 10 to 60; labels 1 2 1 2 1 2; 1 and 2 are train, 3 and 4 val, 5 and 6 test."""
    pictures = {f"jpg/image_{number:05}.jpg": image(10 * number) for number in range(1, 7)}
    ids = {"trnid": np.array([[1, 2]]), "valid": np.array([[3, 4]]), "tstid": np.array([[5, 6]])}
    return {
        "102flowers.tgz": tar(pictures),
        "imagelabels.mat": matlab({"labels": np.array([[1, 2, 1, 2, 1, 2]])}),
        "setid.mat": matlab(ids),
    }


def gtsrb() -> Files:
    """Two tracks of class 0 and one of class 1; two test pictures."""
    train = {f"GTSRB/Training/00000/0000{track}_00000.ppm": image(track, "PPM") for track in (0, 1)}
    train["GTSRB/Training/00001/00000_00000.ppm"] = image(9, "PPM")
    test = {f"GTSRB/Final_Test/Images/0000{number}.ppm": image(100 + number, "PPM") for number in (0, 1)}
    truth = (
        "Filename;Width;Height;Roi.X1;Roi.Y1;Roi.X2;Roi.Y2;ClassId\n00000.ppm;8;8;0;0;7;7;1\n00001.ppm;8;8;0;0;7;7;0\n"
    )
    return {
        "GTSRB-Training_fixed.zip": zipped(train),
        "GTSRB_Final_Test_Images.zip": zipped(test),
        "GTSRB_Final_Test_GT.zip": zipped({"GT-final_test.csv": truth.encode()}),
    }


def cifar100() -> Files:
    def batch(values: list[int], labels: list[int]) -> bytes:
        pixels = np.repeat(np.array(values, dtype=np.uint8)[:, None], 3072, axis=1)
        return pickle.dumps({"data": pixels, "fine_labels": labels}, protocol=2)

    names = pickle.dumps({"fine_label_names": ["apple", "aquarium_fish"]}, protocol=2)
    files = {"train": batch([1, 2, 3], [0, 1, 1]), "test": batch([4, 5], [0, 1]), "meta": names}
    return {"cifar-100-python.tar.gz": tar({f"cifar-100-python/{name}": data for name, data in files.items()})}


def dtd() -> Files:
    """One picture of each of two classes per split."""
    names = {"train": "0001", "val": "0002", "test": "0003"}
    files = {}
    for split, number in names.items():
        entries = [f"{name}/{name}_{number}.jpg" for name in ("banded", "dotted")]
        files |= {f"dtd/images/{entry}": image(int(number)) for entry in entries}
        files[f"dtd/labels/{split}1.txt"] = "".join(f"{entry}\n" for entry in entries).encode()
    return {"dtd-r1.0.1.tar.gz": tar(files)}


def eurosat() -> Files:
    names = ("2750/Forest/Forest_1.jpg", "2750/Forest/Forest_2.jpg", "2750/River/River_1.jpg")
    return {"EuroSAT.zip": zipped({name: image(9) for name in names})}


def omniglot() -> Files:
    """The same alphabet and character in both archives: still two classes."""
    return {
        f"images_{part}.zip": zipped(
            {f"images_{part}/Greek/character01/000{n}_01.png": image(n, "PNG") for n in (1, 2)}
        )
        for part in ("background", "evaluation")
    }


def fgvc_aircraft() -> Files:
    """F-16A/B has a slash in its name; there is no family or manufacturer list."""
    data = {"variants.txt": b"F-16A/B\n707-320\n"}
    for number, split in enumerate(("train", "val", "test")):
        ids = (f"{number}000001", f"{number}000002")
        data |= {f"images/{one}.jpg": image(10 * number) for one in ids}
        data[f"images_variant_{split}.txt"] = f"{ids[0]} F-16A/B\n{ids[1]} 707-320\n".encode()
    return {"fgvc-aircraft-2013b.tar.gz": tar({f"fgvc-aircraft-2013b/data/{k}": v for k, v in data.items()})}


def oxford_iiit_pet() -> Files:
    lists = {"trainval": ("Abyssinian_1", "beagle_1"), "test": ("Abyssinian_2", "beagle_2")}
    notes = {
        f"annotations/{split}.txt": "".join(f"{name} {n + 1} 1 1\n" for n, name in enumerate(names)).encode()
        for split, names in lists.items()
    }
    pictures = {f"images/{name}.jpg": image(5) for names in lists.values() for name in names}
    return {"images.tar.gz": tar(pictures), "annotations.tar.gz": tar(notes)}


def mnist() -> Files:
    pixels, labels = np.full((2, 28, 28), 7), np.array([5, 0])
    return {
        f"{part}-{what}": idx(array)
        for part in ("train", "t10k")
        for what, array in (("images-idx3-ubyte.gz", pixels), ("labels-idx1-ubyte.gz", labels))
    }
