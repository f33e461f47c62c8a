"""Images and labels: folders, splits, decoding, augmentation, batches."""

from flowers.data.augment import BatchAugmentation
from flowers.data.cache import build_once, cache_key, default_cache_dir
from flowers.data.datamodule import FlowersDataModule
from flowers.data.datasets import DECODING_FORMAT, ResumableLoader
from flowers.data.image_folder import (
    IgnoredFile,
    find_images,
    index_folder,
    read_credits,
    reasons_to_ignore,
    summarize_ignored,
)
from flowers.data.quality.audit_folder import KINDS, Audit, Finding, audit_folder
from flowers.data.quality.duplicates import DuplicateRule, duplicate_pairs
from flowers.data.quality.image_info import read_image_info
from flowers.data.quality.quarantine import QuarantineRow, quarantine_text
from flowers.data.samplers import share
from flowers.data.sources import ensure_root
from flowers.data.sources.synthetic import SYNTHETIC_CLASSES, generate_flower, generate_flowers
from flowers.data.splitting.manifest import manifest_text, read_manifest
from flowers.data.transforms import load_image, load_named, load_thumbnail, to_float
from flowers.decoding import allow_megapixels
