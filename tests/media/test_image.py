"""Still and animated pictures of every mode, upright and on white."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.media.numbered import everything, numbered_frames, numbers_of, smooth_noise
from videollm.errors import MediaLimitError
from videollm.media.read import probe
from videollm.media.source import Limits

PICTURE = smooth_noise(7, 60, 80)


def read(path: Path, **options: object) -> np.ndarray:
    clip = everything(path, **options)
    assert clip.kind == "image" and clip.frames is not None and clip.waveforms is None
    assert len(clip.frames) == 1 and clip.frames.seconds.tolist() == [0.0] and clip.duration_seconds == 0
    return clip.frames.pixels[0]


@pytest.mark.parametrize("suffix", ["png", "bmp", "tiff", "webp", "gif", "jpg", "avif"])
def test_formats(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(PICTURE).save(path, **({"lossless": True} if suffix == "webp" else {"quality": 95}))
    found = read(path)
    assert found.shape == PICTURE.shape
    off = np.abs(found.astype(int) - PICTURE)
    assert off.max() == 0 if suffix in ("png", "bmp", "tiff", "webp") else off.mean() < 12


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["jpg", "png"])
def test_exif_orientation(tmp_path: Path, suffix: str, orientation: int) -> None:
    picture = Image.fromarray(PICTURE)
    exif = picture.getexif()
    exif[0x0112] = orientation
    path = tmp_path / f"a.{suffix}"
    picture.save(path, exif=exif, quality=98, subsampling=0) if suffix == "jpg" else picture.save(path, exif=exif)
    upright = {
        1: PICTURE, 2: PICTURE[:, ::-1], 3: PICTURE[::-1, ::-1], 4: PICTURE[::-1],
        5: PICTURE.transpose(1, 0, 2), 6: np.rot90(PICTURE, -1), 7: np.rot90(PICTURE, -1)[::-1, ::1][:, ::-1][::1],
        8: np.rot90(PICTURE, 1),
    }[orientation]  # fmt: skip
    if orientation == 7:
        upright = PICTURE.transpose(1, 0, 2)[::-1, ::-1]
    found = read(path)
    assert found.shape == upright.shape and np.abs(found.astype(int) - upright).mean() < 3
    assert (probe(path).width, probe(path).height) == (upright.shape[1], upright.shape[0])


def test_transparency_is_laid_on_white(tmp_path: Path) -> None:
    rgba = np.zeros((4, 4, 4), np.uint8)
    rgba[..., 0] = 200
    rgba[:2, :, 3] = 255
    rgba[2, :, 3] = 128
    path = tmp_path / "a.png"
    Image.fromarray(rgba).save(path)
    found = read(path)
    assert found[0, 0].tolist() == [200, 0, 0] and found[3, 0].tolist() == [255, 255, 255]
    assert np.abs(found[2, 0].astype(int) - [227, 127, 127]).max() <= 1


def test_palette_with_a_transparent_entry(tmp_path: Path) -> None:
    picture = Image.new("P", (4, 2))
    picture.putpalette([10, 20, 30, 200, 100, 50])
    picture.putdata([0, 1, 1, 1, 1, 1, 1, 0])
    path = tmp_path / "a.png"
    picture.save(path, transparency=0)
    found = read(path)
    assert found[0, 0].tolist() == [255, 255, 255] and found[0, 1].tolist() == [200, 100, 50]


def test_sixteen_bits_and_other_modes(tmp_path: Path) -> None:
    deep = np.linspace(0, 65535, 256 * 4).astype(np.uint16).reshape(4, 256)
    for suffix in ("png", "tiff"):
        Image.fromarray(deep).save(tmp_path / f"deep.{suffix}")
        assert np.abs(read(tmp_path / f"deep.{suffix}")[..., 0].astype(int) - deep / 257).max() <= 1
    for mode, suffix in (("L", "png"), ("1", "png"), ("CMYK", "jpg"), ("LA", "png"), ("F", "tiff"), ("YCbCr", "jpg")):
        picture = Image.fromarray(PICTURE).convert("L").convert(mode) if mode == "LA" else Image.fromarray(PICTURE)
        picture = picture if mode == "LA" else picture.convert(mode)
        path = tmp_path / f"{mode}.{suffix}"
        picture.save(path)
        wanted = np.asarray(picture.convert("RGB")).astype(int)
        if mode == "F":
            wanted = np.repeat(np.asarray(picture)[..., None], 3, 2)
        assert np.abs(read(path) - wanted).mean() < 6, mode


@pytest.mark.parametrize("suffix", ["gif", "webp", "png"])
def test_animations_are_videos_and_single_frames_are_not(tmp_path: Path, suffix: str) -> None:
    frames = [Image.fromarray(each) for each in numbered_frames(5)]
    path = tmp_path / f"a.{suffix}"
    options = {"lossless": True} if suffix == "webp" else {}
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=[100, 300, 200, 100, 400], loop=0, **options)
    clip = everything(path)
    assert clip.kind == "video" and clip.frames is not None and numbers_of(clip) == [0, 1, 2, 3, 4]
    np.testing.assert_allclose(clip.frames.seconds, [0.0, 0.1, 0.4, 0.6, 0.7], atol=1e-3)
    assert clip.duration_seconds == pytest.approx(1.1, abs=1e-3) and probe(path).kind == "video"
    frames[0].save(tmp_path / f"one.{suffix}")
    assert everything(tmp_path / f"one.{suffix}").kind == "image"


def test_a_picture_cut_off_is_read_as_far_as_it_goes(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    Image.fromarray(smooth_noise(2, 480, 640)).save(path)
    whole = read(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 6 // 10])
    clip = everything(path)
    assert clip.frames is not None and clip.notes == ("the picture is cut off or damaged: part of it is missing",)
    assert np.array_equal(clip.frames.pixels[0][:160], whole[:160])


def test_limits(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    Image.fromarray(PICTURE).save(path)
    with pytest.raises(MediaLimitError, match="80x60"):
        read(path, limits=Limits(frame_pixels=4799))
    clip = everything(path, limits=Limits(pixel_bytes=40 * 30 * 3))
    assert clip.frames is not None and clip.frames.pixels.shape == (1, 30, 40, 3) and "80x60" in clip.notes[0]
