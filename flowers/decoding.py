"""Which image files are read. Needs Pillow alone, so that a program without torch can import it."""

from __future__ import annotations

# Endings of photos' names, and Pillow's names of the formats that such a file may have. No other decoder of Pillow's is
# ever started: that of EPS, for one, runs Ghostscript on the file. MPO is the JPEG of cameras that add a preview.
IMAGE_FORMATS = {
    ".jpg": ("JPEG", "MPO"),
    ".jpeg": ("JPEG", "MPO"),
    ".jpe": ("JPEG", "MPO"),
    ".jfif": ("JPEG", "MPO"),
    ".png": ("PNG",),
    ".webp": ("WEBP",),
    ".avif": ("AVIF",),
    ".gif": ("GIF",),
    ".bmp": ("BMP",),
    ".ppm": ("PPM",),
    ".pgm": ("PPM",),
    ".tif": ("TIFF",),
    ".tiff": ("TIFF",),
}
IMAGE_EXTENSIONS = tuple(IMAGE_FORMATS)
