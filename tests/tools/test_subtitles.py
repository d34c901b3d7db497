"""Subtitles, read back by FFmpeg: the same words at the same times, whatever the words are."""

from __future__ import annotations

from pathlib import Path

import av
import pytest

from videollm.tools.subtitles import Cue, srt, vtt

CUES = [
    Cue(0.0, 4.0, "a red circle moves left."),
    Cue(4.0, 4.0, "no time at all"),
    Cue(9.9996, 12.5, "a very long sentence, of which nobody can say that it could be read in one line of a picture"),
    Cue(8.0, 10.0, "earlier than the one before"),
    Cue(20.0, 21.0, "  "),
    Cue(20.0, 21.0, ""),
    Cue(3723.0425, 3725.0, "2 --> 1 & <b>bold</b> {\\an8}up &amp; 00:00:01,000 --> 00:00:02,000"),
    Cue(40000.0, 40001.0, "line\nbreak\n\nand\r\n\x00\x1b[31m控え 🙂"),
]
EXPECTED = [
    (0, 4000, "a red circle moves left."),
    (4000, 4001, "no time at all"),
    (8000, 10000, "earlier than the one before"),
    (10000, 12500, "a very long sentence, of which nobody can say that it could be read in one line of a picture"),
    (3723042, 3725000, "2 -> 1 & <b>bold</b> {\\an8}up &amp; 00:00:01,000 -> 00:00:02,000"),
    (40000000, 40001000, "line break and [31m控え 🙂"),
]


def read_back(path: Path) -> list[tuple[int, int, str]]:
    """(start, end, words) of every cue, by FFmpeg; milliseconds."""
    found = []
    with av.open(str(path)) as container:
        stream = container.streams.subtitles[0]
        for packet in container.demux(stream):
            if not packet.size:
                continue
            scale = float(packet.time_base) * 1000
            start, end = round(packet.pts * scale), round((packet.pts + packet.duration) * scale)
            # ASS events: eight fields, then the words; "\N" is a line break, "{...}" a command.
            (words,) = packet.decode()
            text = words.dialogue.decode() if isinstance(words.dialogue, bytes) else words.dialogue
            found.append((start, end, " ".join(text.replace("\u200b", "").replace("\\N", " ").split())))
    return found


@pytest.mark.parametrize("write", [srt, vtt])
def test_ffmpeg_reads_what_was_written(tmp_path: Path, write) -> None:
    path = tmp_path / f"cues.{write.__name__}"
    path.write_text(write(CUES), encoding="utf-8")
    found = read_back(path)
    assert [cue[:2] for cue in found] == [cue[:2] for cue in EXPECTED]
    # FFmpeg hands words on as ASS, which has no way to write a brace and the backslash.
    simple = [place for place, cue in enumerate(EXPECTED) if "{" not in cue[2]]
    assert [found[place][2] for place in simple] == [EXPECTED[place][2] for place in simple]
    assert "<b>bold</b>" in found[4][2] and "up &amp; 00:00:01,000 -> 00:00:02,000" in found[4][2]


def test_the_files_to_the_letter() -> None:
    cues = [Cue(0.5, 2.25, "one & two"), Cue(3600, 36000.001, "a sentence that is longer than a line of subtitles is")]
    assert srt(cues) == (
        "1\n00:00:00,500 --> 00:00:02,250\none & two\n\n"
        "2\n01:00:00,000 --> 10:00:00,001\na sentence that is longer than a line of\nsubtitles is\n"
    )
    assert vtt(cues) == (
        "WEBVTT\n\n00:00:00.500 --> 00:00:02.250\none &amp; two\n\n"
        "01:00:00.000 --> 10:00:00.001\na sentence that is longer than a line of\nsubtitles is\n"
    )
    assert srt([]) == "" and vtt([]) == "WEBVTT\n"
