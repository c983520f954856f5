"""Finds images, decodes them under limits and turns them into what an autoencoder takes.

Import the names from here; `prepare` and the rest of the package are imported from their modules.
"""

from oddment.images.decode import DEFAULT_MAX_PIXELS, Decoded, Payload, Probe, decode, probe, thumbnail
from oddment.images.files import MAX_MEMBER_BYTES, ImageRef, count_images, iter_images

__all__ = [
    "DEFAULT_MAX_PIXELS",
    "MAX_MEMBER_BYTES",
    "Decoded",
    "ImageRef",
    "Payload",
    "Probe",
    "count_images",
    "decode",
    "iter_images",
    "probe",
    "thumbnail",
]
