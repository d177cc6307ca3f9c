"""From a folder of pictures to batches on a device: folders -> splits -> pictures -> batches."""

from nettailor_cli.core.data.augment import Augmentation, central_crop
from nettailor_cli.core.data.batches import Batch, Batches, evaluation_batches
from nettailor_cli.core.data.cache import Cache
from nettailor_cli.core.data.dataset import SPLITS, Dataset, Example
from nettailor_cli.core.data.decode import BadImage, decode, read_square, to_square
from nettailor_cli.core.data.finding import find_images, images_from
from nettailor_cli.core.data.folders import IMAGE_SUFFIXES, read_dataset
from nettailor_cli.core.data.parallel import cores
from nettailor_cli.core.data.pictures import Pictures, load_pictures
from nettailor_cli.core.data.splits import divide, select
from nettailor_cli.core.data.torchvision_sets import data_folder

__all__ = [
    "IMAGE_SUFFIXES",
    "SPLITS",
    "Augmentation",
    "BadImage",
    "Batch",
    "Batches",
    "Cache",
    "Dataset",
    "Example",
    "Pictures",
    "central_crop",
    "cores",
    "data_folder",
    "decode",
    "divide",
    "evaluation_batches",
    "find_images",
    "images_from",
    "load_pictures",
    "read_dataset",
    "read_square",
    "select",
    "to_square",
]
