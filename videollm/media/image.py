"""Still pictures, and animated WebP, through Pillow: upright, RGB, transparency on white.

A gif, png or webp with a single frame is a still image; with several it is a video.
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np

from videollm.clips import Frames
from videollm.errors import MediaUnreadableError, MissingDependencyError
from videollm.media.sampling import FrameSampling
from videollm.media.source import SourceFile, check_duration, check_pixels, memory_error
from videollm.media.video import fit_size, on_white

PILLOW_FORMATS = {
    "jpeg": ("JPEG", "MPO"),
    "png": ("PNG",),
    "gif": ("GIF",),
    "webp": ("WEBP",),
    "bmp": ("BMP",),
    "tiff": ("TIFF",),
    "avif": ("AVIF",),
}


def open_picture(source: SourceFile, picture_format: str) -> Any:
    """A lazily read `PIL.Image.Image` whose size has been checked.

    Raises:
        MediaUnreadableError: not a readable picture.
        MediaLimitError: too many pixels.
    """
    try:
        from PIL import Image
    except ImportError:
        raise MissingDependencyError("reading pictures needs Pillow; run: pip install pillow") from None
    Image.MAX_IMAGE_PIXELS = None  # our own limit is checked before a pixel is read
    try:
        picture = Image.open(source.stream(), formats=PILLOW_FORMATS[picture_format])
    except Exception as error:  # Pillow's plugins raise anything on damaged headers
        raise _unreadable(source, picture_format, error) from None
    check_pixels(source, *picture.size)
    return picture


def _unreadable(source: SourceFile, picture_format: str, error: Exception) -> MediaUnreadableError:
    reason = " ".join(str(error).split()).lower()
    if "cannot identify" in reason or not reason:
        reason = "its header is damaged"
    return MediaUnreadableError(
        f"{source.name}: this {picture_format} picture cannot be read ({reason[:120]}); copy or download it again"
    )


def is_animated(picture: Any) -> bool:
    """Whether a picture of a kind that can move has more than one frame."""
    if picture.format not in ("PNG", "GIF", "WEBP", "AVIF"):
        return False
    try:
        return getattr(picture, "n_frames", 1) > 1
    except Exception:  # a damaged tail: what can be read is the first frame
        return False


def read_picture(source: SourceFile, picture_format: str) -> tuple[Frames, list[str]]:
    """A still image as one frame at second 0, and notes for the user.

    Raises:
        MediaUnreadableError: not a readable picture.
        MediaLimitError: too many pixels, or no memory.
    """
    from PIL import ImageFile, ImageOps

    picture = open_picture(source, picture_format)
    notes: list[str] = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            picture.load()
        except MemoryError:
            raise memory_error(source) from None
        except Exception as error:
            # A damaged or cut off picture: what there is of it, if there is any.
            picture = open_picture(source, picture_format)
            ImageFile.LOAD_TRUNCATED_IMAGES = True
            try:
                picture.load()
            except MemoryError:
                raise memory_error(source) from None
            except Exception:
                raise _unreadable(source, picture_format, error) from None
            finally:
                ImageFile.LOAD_TRUNCATED_IMAGES = False
            notes.append("the picture is cut off or damaged: part of it is missing")
        try:
            picture = ImageOps.exif_transpose(picture) or picture
        except Exception:  # damaged EXIF data: shown as stored
            notes.append("the picture's orientation cannot be read; it is shown as stored")
        try:
            size = fit_size(picture.size, 1, source.limits.pixel_bytes)
            if size != picture.size:
                stored = f"{picture.width}x{picture.height}"
                notes.append(f"the picture of {stored} was read at {max(size)} pixels on the longer side")
                picture = picture.resize(size)
            pixels = as_rgb(picture)
        except MemoryError:
            raise memory_error(source) from None
        except Exception as error:
            raise _unreadable(source, picture_format, error) from None
    return Frames(np.ascontiguousarray(pixels)[None], np.zeros(1), 0.0), notes


def as_rgb(picture: Any) -> np.ndarray:
    """uint8 (H, W, 3) of a loaded Pillow picture of any mode."""
    if picture.mode in ("I", "F") or picture.mode.startswith("I;16"):
        values = np.asarray(picture).astype(np.float64)
        top = 65535.0
        if picture.mode == "F":
            top = 255.0 if values.max(initial=0.0) > 1 else 1.0
        grey = np.clip(np.nan_to_num(values) * (255.0 / top) + 0.5, 0, 255).astype(np.uint8)
        return np.repeat(grey[..., None], 3, axis=2)
    if picture.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in picture.info:
        return on_white(np.asarray(picture.convert("RGBA")))
    return np.asarray(picture.convert("RGB"))


def read_animation(source: SourceFile, picture_format: str, sampling: FrameSampling) -> tuple[Frames, list[str]]:
    """An animated picture as a video. Two passes: times, then the chosen frames.

    Raises:
        MediaUnreadableError: no frame can be read.
        MediaLimitError: too long, or no memory.
    """
    from PIL import Image

    picture = open_picture(source, picture_format)
    lengths: list[float] = []
    notes: list[str] = []
    try:
        for index in range(min(picture.n_frames, source.limits.frames)):
            picture.seek(index)
            picture.load()
            lengths.append(max(float(picture.info.get("duration", 0.0)), 0.0) / 1000 or 0.1)
    except MemoryError:
        raise memory_error(source) from None
    except Exception as error:
        if not lengths:
            raise _unreadable(source, picture_format, error) from None
        notes.append(f"{picture.n_frames - len(lengths)} of {picture.n_frames} pictures are damaged and were left out")
    times = np.concatenate([[0.0], np.cumsum(lengths)])
    check_duration(source, float(times[-1]))
    chosen = sampling.indices(times[:-1], float(times[-1]))
    squash_px = sampling.squash_px
    asked = (squash_px, squash_px) if squash_px else picture.size
    size = fit_size(asked, len(chosen), source.limits.pixel_bytes)
    scaler = Image.Resampling.BILINEAR if squash_px else Image.Resampling.BICUBIC
    picture = open_picture(source, picture_format)
    pixels = []
    for index in chosen.tolist():
        picture.seek(index)
        shown = picture.convert("RGBA")
        pixels.append(on_white(np.asarray(shown if shown.size == size else shown.resize(size, scaler))))
    return Frames(np.stack(pixels), times[:-1][chosen], float(times[-1]), len(times) - 1), notes
