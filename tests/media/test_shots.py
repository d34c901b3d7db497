"""Where shots begin: at cuts, and not at motion, flicker or fades; windows that end there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from videollm.media.decode_worker import open_windows
from videollm.media.read import read_clip
from videollm.media.sampling import FrameSampling, SoundSampling
from videollm.media.shots import cuts
from videollm.media.source import open_source
from videollm.media.video import frames_in_order
from videollm.media.windows import WindowedFile, WindowSampling, spans_of, windows_of
from videollm.media.write import write_video


def shot(seed: int, count: int) -> np.ndarray:
    """A patch that moves over a ground: uint8 ``(T, 48, 64, 3)``."""
    rng = np.random.default_rng(seed)
    pixels = np.empty((count, 48, 64, 3), np.uint8)
    pixels[:] = rng.integers(0, 256, 3)
    colour = rng.integers(0, 256, 3)
    for place in range(count):
        pixels[place, 10:30, place % 40 : place % 40 + 20] = colour
    return pixels


def at_4_hz(pixels: np.ndarray) -> list[tuple[float, np.ndarray]]:
    return [(place / 4, picture) for place, picture in enumerate(pixels)]


def test_a_cut_is_the_first_frame_after_it() -> None:
    assert cuts(at_4_hz(np.concatenate([shot(1, 12), shot(2, 20), shot(3, 8)]))) == [3.0, 8.0]


def test_what_only_moves_flickers_or_fades_is_no_cut() -> None:
    rng = np.random.default_rng(0)
    static = rng.integers(0, 256, (20, 48, 64, 3), dtype=np.uint8)
    ramp = np.broadcast_to(np.linspace(0, 255, 64)[None, None, :, None], (20, 48, 64, 3))
    fade = (ramp * np.linspace(0.2, 1.0, 20)[:, None, None, None]).astype(np.uint8)
    flicker = (shot(1, 20) * np.where(np.arange(20) % 2, 1.0, 0.7)[:, None, None, None]).astype(np.uint8)
    for pixels in (shot(1, 20), static, fade, flicker):
        assert cuts(at_4_hz(pixels)) == []


def test_a_flash_and_nothing_are_no_shots() -> None:
    assert cuts(at_4_hz(np.concatenate([shot(1, 12), shot(2, 2), shot(1, 12)]))) == [3.0]
    assert cuts([]) == cuts(at_4_hz(shot(1, 1))) == []


def test_shots_are_windows_and_long_ones_are_cut() -> None:
    sampling = WindowSampling(4.0, 2.0, None, None, cuts=True)
    assert spans_of(sampling, 12.0, [3.0, 9.5]) == ((0, 3), (3, 7), (5, 9), (7, 9.5), (9.5, 12))
    part = WindowSampling(4.0, 2.0, None, None, start_seconds=2.0, end_seconds=5.0, cuts=True)
    assert spans_of(part, 12.0, [3.0, 9.5]) == ((2, 3), (3, 5))


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """7.5 s with cuts at 3 and 5 s."""
    pictures = np.concatenate([shot(1, 24), shot(2, 16), shot(3, 20)])
    return write_video(tmp_path_factory.mktemp("film") / "film.mp4", pictures, fps=8)


def test_windows_end_at_the_cuts_of_a_file(film: Path) -> None:
    frames, sound = FrameSampling("rate", rate_hz=4.0), SoundSampling()
    with open_windows(film, WindowSampling(4.0, 2.0, frames, sound, cuts=True)) as opened:
        windows = list(opened)
        assert opened.file.cuts_seconds == (3.0, 5.0)
        assert opened.file.spans == tuple((one.start_seconds, one.end_seconds) for one in windows)
    for window, span in zip(windows, ((0, 3), (3, 5), (5, 7.5)), strict=True):
        assert (window.start_seconds, window.end_seconds) == pytest.approx(span)
        alone = read_clip(film, frames=frames, start_seconds=window.start_seconds, end_seconds=window.end_seconds)
        assert window.clip.frames is not None and alone.frames is not None
        np.testing.assert_array_equal(window.clip.frames.pixels, alone.frames.pixels)
    with open_windows(film, WindowSampling(4.0, 2.0, frames, sound, first=1, cuts=True)) as opened:
        assert [one.index for one in opened] == [1, 2]
    with open_windows(film, WindowSampling(4.0, 4.0, frames, sound)) as opened:
        assert opened.file.cuts_seconds == () and len(opened.file.spans) == 2


@pytest.mark.parametrize(("start", "end"), [(0.0, 7.5), (2.9, 3.1), (2.6, 4.9), (3.0, 5.1), (4.95, 99.0), (6.0, 7.0)])
def test_a_stretch_has_the_cuts_of_the_whole_and_no_more_is_decoded(
    film: Path, monkeypatch: pytest.MonkeyPatch, start: float, end: float
) -> None:
    decoded: list[np.ndarray] = []

    def watched(source: Any, container_format: str, table: Any, places: np.ndarray) -> Any:
        decoded.append(table.seconds[places])
        return frames_in_order(source, container_format, table, places)

    monkeypatch.setattr("videollm.media.windows.frames_in_order", watched)
    sampling = WindowSampling(4.0, 2.0, None, None, start_seconds=start, end_seconds=end, cuts=True)
    with open_source(film) as source:
        about = next(iter(windows_of(source, sampling)))
    assert isinstance(about, WindowedFile)
    assert about.cuts_seconds == tuple(at for at in (3.0, 5.0) if start < at < end)
    (seconds,) = decoded
    assert start - 1.25 <= seconds[0] and seconds[-1] <= end + 1.0
