"""What an image and a label are: files, splits, decoding, augmentation, batches."""

from flowers.data.augment import BatchAugmentation
from flowers.data.cache import DecodedImages, decode_all, default_cache_dir
from flowers.data.datamodule import FlowersDataModule
from flowers.data.folder import FolderIndex, index_folder
from flowers.data.loading import Batch
from flowers.data.manifest import ManifestRow, manifest_text, read_manifest
from flowers.data.synthetic import draw_flower, draw_flowers
from flowers.data.transforms import Resize, load_image, to_float

__all__ = [
    "Batch",
    "BatchAugmentation",
    "DecodedImages",
    "FlowersDataModule",
    "FolderIndex",
    "ManifestRow",
    "Resize",
    "decode_all",
    "default_cache_dir",
    "draw_flower",
    "draw_flowers",
    "index_folder",
    "load_image",
    "manifest_text",
    "read_manifest",
    "to_float",
]
