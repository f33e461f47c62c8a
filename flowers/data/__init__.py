"""What an image and a label are: files, splits, decoding, augmentation, batches."""

from flowers.data.augment import BatchAugmentation
from flowers.data.cache import decode_all, default_cache_dir
from flowers.data.credits import Credit, read_credits
from flowers.data.datamodule import FlowersDataModule
from flowers.data.duplicates import Pairs, duplicate_pairs
from flowers.data.facts import FolderFacts, ImageFacts, read_facts
from flowers.data.folder import FolderIndex, index_folder
from flowers.data.loading import Batch
from flowers.data.manifest import ManifestRow, manifest_text, read_manifest
from flowers.data.synthetic import draw_flower, draw_flowers
from flowers.data.transforms import Resize, load_image, to_float

__all__ = [
    "Batch",
    "BatchAugmentation",
    "Credit",
    "FlowersDataModule",
    "FolderFacts",
    "FolderIndex",
    "ImageFacts",
    "ManifestRow",
    "Pairs",
    "Resize",
    "decode_all",
    "default_cache_dir",
    "draw_flower",
    "draw_flowers",
    "duplicate_pairs",
    "index_folder",
    "load_image",
    "manifest_text",
    "read_credits",
    "read_facts",
    "read_manifest",
    "to_float",
]
