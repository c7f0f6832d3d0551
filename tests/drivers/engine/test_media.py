"""Pictures and sounds: decoded as they are, refused before they are decoded where they are too large."""

from __future__ import annotations

import contextlib
import io
import struct
import zlib
from typing import Any

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from llmos.drivers.contract import MediaPart, TablePart
from llmos.drivers.engine import media
from llmos.drivers.engine.media import MediaLimits
from llmos.syscalls.errors import BadArgument, TooLarge

RATE = 16_000


def encoded(image: Any, kind: str = "PNG", **options: Any) -> memoryview:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return memoryview(stream.getvalue())


def gradient(width: int = 6, height: int = 4) -> Any:
    values = np.arange(width * height * 3, dtype=np.uint8).reshape(height, width, 3)
    return Image.fromarray(values)


def wave(samples: Any, rate: int = RATE, kind: str = "WAV") -> memoryview:
    stream = io.BytesIO()
    soundfile.write(stream, samples, rate, format=kind, subtype="FLOAT" if kind == "WAV" else None)
    return memoryview(stream.getvalue())


def tone(seconds: float = 0.5, rate: int = RATE, hertz: float = 440.0) -> Any:
    return (0.5 * np.sin(2 * np.pi * hertz * np.arange(int(seconds * rate)) / rate)).astype(np.float32)


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "PPM", "WEBP"])
def test_a_picture_keeps_its_pixels(kind: str) -> None:
    options = {"lossless": True, "exact": True} if kind == "WEBP" else {}
    read = media.picture(encoded(gradient(), kind, **options))
    assert read.mode == "RGB" and np.array_equal(np.asarray(read), np.asarray(gradient()))


def test_a_picture_is_turned_upright_and_made_colour() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned by a quarter
    assert media.picture(encoded(gradient(), "JPEG", exif=exif)).size == (4, 6)
    assert media.picture(encoded(Image.new("L", (3, 2), 7))).getpixel((0, 0)) == (7, 7, 7)


def bomb(width: int, height: int) -> memoryview:
    """A PNG of a few bytes whose header claims so many pixels."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(bytes(100))), (b"IEND", b"")]
    body = b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)) for name, data in chunks
    )
    return memoryview(b"\x89PNG\r\n\x1a\n" + body)


@pytest.mark.parametrize("size", [(1 << 13, (1 << 13) + 1), (10_000, 10_000), (100_000, 100_000)])
def test_a_bomb_is_refused_by_its_header(size: tuple[int, int]) -> None:
    with pytest.raises(TooLarge) as error:
        media.picture(bomb(*size))
    assert error.value.limit == 64 << 20


def test_bytes_are_limited_before_anything_is_read() -> None:
    with pytest.raises(TooLarge, match="picture has 5 bytes, at most 4"):
        media.picture(memoryview(b"12345"), MediaLimits(encoded_bytes=4))
    with pytest.raises(TooLarge, match="sound has 5 bytes"):
        media.sound(memoryview(b"12345"), RATE, MediaLimits(encoded_bytes=4))


@pytest.mark.parametrize("data", [b"", b"hello", b"%!PS-Adobe-3.0 EPSF-3.0", b"\x89PNG\r\n\x1a\nshort"])
def test_what_is_no_picture_is_refused(data: bytes) -> None:
    with pytest.raises(BadArgument, match="picture"):
        media.picture(memoryview(data))


def test_a_picture_cut_short_is_refused() -> None:
    with pytest.raises(BadArgument, match="damaged"):
        media.picture(encoded(Image.effect_noise((64, 64), 50))[:1500])


@given(st.data())
def test_a_damaged_file_is_read_or_refused_but_nothing_else(data: st.DataObject) -> None:
    whole = data.draw(st.sampled_from(FILES))
    broken = bytearray(whole)
    for at in data.draw(st.lists(st.integers(0, len(whole) - 1), min_size=1, max_size=8)):
        broken[at] = data.draw(st.integers(0, 255))
    read = media.picture if whole in PICTURES else lambda given: media.sound(given, RATE)
    with contextlib.suppress(BadArgument, TooLarge):
        read(memoryview(bytes(broken)))


PICTURES = [bytes(encoded(gradient(), kind)) for kind in ("PNG", "JPEG", "GIF", "TIFF", "WEBP", "BMP")]
FILES = [*PICTURES, *(bytes(wave(tone(0.02), kind=kind)) for kind in ("WAV", "FLAC", "OGG"))]


def test_a_sound_at_the_wanted_rate_keeps_its_samples() -> None:
    assert np.array_equal(media.sound(wave(tone()), RATE), tone())


def test_channels_are_mixed() -> None:
    stereo = np.stack([tone(), np.zeros_like(tone())], axis=1)
    assert np.allclose(media.sound(wave(stereo), RATE), tone() / 2)


def test_another_rate_is_resampled() -> None:
    read = media.sound(wave(tone(rate=44_100), rate=44_100), RATE)
    assert read.dtype == np.float32 and len(read) == len(tone())
    assert np.abs(read - tone())[200:-200].max() < 0.01


def test_a_long_sound_is_refused_by_its_header() -> None:
    with pytest.raises(TooLarge, match="seconds"):
        media.sound(wave(tone(0.5)), RATE, MediaLimits(seconds=0.4))
    with pytest.raises(TooLarge, match="samples"):
        media.sound(wave(np.zeros((100, 2), np.float32)), RATE, MediaLimits(samples=199))


@pytest.mark.parametrize("data", [b"", b"hello", b"RIFF\x04\0\0\0WAVE"])
def test_what_is_no_sound_is_refused(data: bytes) -> None:
    with pytest.raises(BadArgument, match="no sound"):
        media.sound(memoryview(data), RATE)


def test_a_sound_without_samples_or_with_impossible_ones_is_refused() -> None:
    with pytest.raises(BadArgument, match="no samples"):
        media.sound(wave(np.zeros(0, np.float32)), RATE)
    with pytest.raises(BadArgument, match="not finite"):
        media.sound(wave(np.full(10, np.nan, np.float32)), RATE)


def test_what_parts_are_is_said() -> None:
    parts = ["text", MediaPart("image", memoryview(b"x")), TablePart([], [])]
    assert media.kinds_of(parts) == "text, image, table" and media.kinds_of([]) == "nothing"
