"""Pictures and sounds from their encoded bytes. What is too large is refused before it is decoded.

pillow, soundfile and soxr are imported when first needed; they come with the extra `media`.
"""

from __future__ import annotations

import importlib
import io
import struct
import warnings
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from llmos.syscalls.errors import BadArgument, NotSupported, TooLarge

PICTURES = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "PPM")
"""Formats that are read; others of pillow run programs or are seldom wanted."""

BLOCK = 1 << 20
"""Samples of a sound that are decoded at a time, before their channels are mixed."""

DAMAGES = (
    OSError, ValueError, SyntaxError, EOFError, IndexError, TypeError, KeyError, OverflowError, struct.error,
    zlib.error,
)  # fmt: skip
"""What pillow raises on files that are not what they say they are."""


@dataclass(frozen=True)
class MediaLimits:
    """What one picture or sound may have at most: encoded bytes, pixels, seconds, samples of all channels."""

    encoded_bytes: int = 256 << 20
    pixels: int = 64 << 20
    seconds: float = 3600.0
    samples: int = 400_000_000


LIMITS = MediaLimits()


def need_images() -> None:
    """Raises NotSupported when pillow is not installed."""
    _module("PIL.Image", "pillow")


def need_sounds() -> None:
    """Raises NotSupported when soundfile or soxr is not installed."""
    _module("soundfile", "soundfile")
    _module("soxr", "soxr")


def picture(data: memoryview, limits: MediaLimits = LIMITS) -> Any:
    """An RGB picture of pillow, turned upright as its camera noted; the first frame of several.

    Raises:
        TooLarge: more bytes or pixels than the limits, by the header, before anything is decoded.
        BadArgument: not a picture, of a format that is not read, or damaged.
        NotSupported: pillow is not installed.
    """
    image = _module("PIL.Image", "pillow")
    turn = _module("PIL.ImageOps", "pillow").exif_transpose
    _check_bytes("picture", data, limits)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            opened = image.open(io.BytesIO(data), formats=PICTURES)
            _check("picture", "pixels", opened.width * opened.height, limits.pixels)
            return turn(opened).convert("RGB")
    except image.DecompressionBombError as error:
        said = f"the picture has far more pixels than the {limits.pixels} that are taken; make it smaller"
        raise TooLarge(said, limit=limits.pixels) from error
    except image.UnidentifiedImageError as error:
        want = ", ".join(PICTURES)
        raise BadArgument(f"this is no picture of the formats {want}", name="input", want=want) from error
    except DAMAGES as error:
        raise BadArgument(f"the picture is damaged: {error}", name="input", got=str(error)[:200]) from error


def sound(data: memoryview, rate: int, limits: MediaLimits = LIMITS) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Samples [n] between -1 and 1 of all channels mixed, at `rate` samples in a second.

    Raises:
        TooLarge: more bytes, seconds or samples than the limits, by the header, before anything is decoded.
        BadArgument: not a sound, of a format that is not read, empty, or damaged.
        NotSupported: soundfile or soxr is not installed.
    """
    reader, resampler = _module("soundfile", "soundfile"), _module("soxr", "soxr")
    _check_bytes("sound", data, limits)
    try:
        with reader.SoundFile(io.BytesIO(data)) as opened:
            _check("sound", "seconds", opened.frames / opened.samplerate, limits.seconds)
            _check("sound", "samples", opened.frames * opened.channels, limits.samples)
            blocks = opened.blocks(BLOCK, dtype="float32", always_2d=True)
            with np.errstate(invalid="ignore", over="ignore"):  # what is not finite is refused below
                mixed, own = [block.mean(axis=1) for block in blocks], opened.samplerate
    except reader.LibsndfileError as error:
        said = f"this is no sound that can be read (WAV, FLAC, OGG, MP3): {error}"
        raise BadArgument(said, name="input", got=str(error)[:200], want="WAV, FLAC, OGG, MP3") from error
    samples = np.concatenate([*mixed, np.zeros(0, np.float32)])
    if not len(samples) or not np.isfinite(samples).all():
        said = "the sound has no samples" if not len(samples) else "the sound has samples that are not finite"
        raise BadArgument(said, name="input", want="a sound with samples")
    if own != rate:
        samples = resampler.resample(samples, own, rate)
    return np.ascontiguousarray(samples, dtype=np.float32)


def _check_bytes(what: str, data: memoryview, limits: MediaLimits) -> None:
    _check(what, "bytes", len(data), limits.encoded_bytes)


def _check(what: str, unit: str, got: float, limit: float) -> None:
    if got > limit:
        said = f"the {what} has {got:.10g} {unit}, at most {limit:.10g} are taken"
        raise TooLarge(said, limit=int(limit), got=int(got))


def _module(name: str, package: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        why = f"{package} is not installed"
        raise NotSupported(f"pictures and sounds need {package}; install llmos[media]", why=why) from error


def kinds_of(parts: Sequence[object]) -> str:
    """The types of parts, for messages."""
    return ", ".join(getattr(part, "kind", "text" if isinstance(part, str) else "table") for part in parts) or "nothing"


def grey(side: int = 64) -> Any:
    """A picture of one colour, to try a model with."""
    return _module("PIL.Image", "pillow").new("RGB", (side, side), (127, 127, 127))
