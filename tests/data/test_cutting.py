"""Cuts in a process that can be killed: what it writes, what it refuses, and that one bad file costs only itself."""

from __future__ import annotations

import os
import signal
import time
from dataclasses import replace
from pathlib import Path

import pytest

from tests.media.numbered import everything, numbered_frames, numbers_of, tones
from videollm.data.cutting import CUT_LIMITS, Cutter
from videollm.errors import DecoderCrashedError, MediaLimitError, MediaUnreadableError
from videollm.media.write import write_sound, write_video


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("film") / "film.mp4"
    return write_video(path, numbered_frames(40), fps=10, waveform=tones(4.0, 16000, 1))


def test_cuts_one_after_the_other(film, tmp_path):
    sound = write_sound(tmp_path / "sound.wav", tones(3.0, 16000, 1))
    with Cutter() as cutter:
        cutter.cut(film, tmp_path / "a.mp4", 1.0, 2.0)
        with pytest.raises(MediaUnreadableError, match=r"nothing to cut at 9\.0 s"):
            cutter.cut(film, tmp_path / "b.mp4", 9.0, 10.0)
        cutter.cut(sound, tmp_path / "c.flac", 0.5, 1.5)
        child = cutter._child
        assert child is not None
        os.kill(child.pid, signal.SIGKILL)  # while it has nothing to do: the next cut gets another
        child.wait()
        cutter.cut(film, tmp_path / "d.mp4", 3.0, 4.0)
    assert numbers_of(everything(tmp_path / "a.mp4")) == list(range(10, 20))
    assert numbers_of(everything(tmp_path / "d.mp4")) == list(range(30, 40))
    assert everything(tmp_path / "c.flac").duration_seconds == pytest.approx(1.0, abs=1e-3)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.mp4", "c.flac", "d.mp4", "sound.wav"]


def test_what_takes_too_long_is_ended(film, tmp_path):
    with Cutter() as cutter:
        cutter.cut(film, tmp_path / "a.mp4", 1.0, 2.0)
        child = cutter._child
        assert child is not None
        cutter.limits = replace(CUT_LIMITS, wall_seconds=0.01)
        with pytest.raises(MediaLimitError, match=r"film\.mp4: cutting took longer than the limit of 0\.01 s"):
            cutter.cut(film, tmp_path / "b.mp4", 0.0, 4.0)
        assert child.poll() == -signal.SIGALRM
    assert not (tmp_path / "b.mp4").exists()


def test_a_child_that_dies_costs_its_file_only(film, tmp_path):
    with Cutter() as cutter:
        cutter.cut(film, tmp_path / "a.mp4", 1.0, 2.0)
        child = cutter._child
        assert child is not None
        os.kill(child.pid, signal.SIGSTOP)
        # Its order waits in the pipe when it dies.
        killer = os.fork()
        if killer == 0:
            time.sleep(0.5)
            os.kill(child.pid, signal.SIGKILL)
            os._exit(0)
        with pytest.raises(DecoderCrashedError, match=r"film\.mp4: the process that cut it died"):
            cutter.cut(film, tmp_path / "b.mp4", 1.0, 2.0)
        os.waitpid(killer, 0)
        cutter.cut(film, tmp_path / "b.mp4", 1.0, 2.0)
