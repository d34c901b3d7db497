"""What the page shows of a clip."""

import base64
import io
import re

import numpy as np
import pytest
from PIL import Image

from tests.small_model import drawn_clip
from videollm.clips import Clip, Frames, Waveform
from videollm.serving.clip_view import WAVEFORM_BINS, in_words, joined, panel_html, view_of


def test_a_view_has_every_frame_and_the_sound():
    view = view_of(drawn_clip(1), "abc", "saw 4 frames")
    assert [seconds for seconds, _ in view.frames] == [0.0, 0.25, 0.5, 0.75]
    image = Image.open(io.BytesIO(base64.b64decode(view.frames[0][1])))
    assert image.format == "JPEG" and image.height == 144 and image.width == round(48 / 40 * 144)
    assert len(view.peaks) == WAVEFORM_BINS and max(view.peaks) == 1.0
    assert view.heard_seconds == ((0.0, 1.0),)


def test_what_was_not_decoded_of_a_sound_is_not_drawn_as_silence():
    waves = (
        Waveform(np.full((1, 8000), 0.5, np.float32), 8000, 0.0),
        Waveform(np.full((1, 8000), 0.25, np.float32), 8000, 9.0),
    )
    windows = ((0.0, 0.5), (0.5, 1.0), (9.0, 10.5))
    view = view_of(Clip("a.wav", "audio", "x", 10.0, None, waves, windows), "abc", "heard")
    assert view.peaks[0] == 1.0 and view.peaks[-1] == pytest.approx(0.5)
    assert set(view.peaks[WAVEFORM_BINS // 8 : WAVEFORM_BINS * 7 // 8]) == {None}
    assert view.heard_seconds == ((0.0, 1.0), (9.0, 10.0))
    html = panel_html([view])
    assert re.findall(r'class="heard" x="([\d.]+)" y="0" width="([\d.]+)"', html) == [
        ("0.0", "100.0"),
        ("900.0", "100.0"),
    ]
    assert "Sound: 2.0 of 10.0 s were heard" in html


def test_stretches_are_joined_in_order_and_end_with_the_clip():
    assert joined([(2, 3), (0, 1), (1, 1.5), (2.5, 9), (7, 7)], 4.0) == ((0, 1.5), (2, 4.0))


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.0, "0 s"), (2.5, "2.5 s"), (0.233, "0.23 s"), (59.999, "60 s"), (65.2, "1:05"), (3661, "1:01:01")],
)
def test_moments_in_words(seconds, words):
    assert in_words(seconds) == words


def test_names_are_words_and_the_last_clip_is_in_front():
    name = '"><img src=x onerror=alert(1)>'
    pixels = np.zeros((1, 10, 10, 3), np.uint8)
    image = Clip(name, "image", "x", 0.0, Frames(pixels, np.zeros(1), 0.0))
    html = panel_html([view_of(drawn_clip(1), "one", "saw"), view_of(image, "two", f"saw {name}")])
    assert "<img src=x" not in html and "&lt;img src=x onerror" in html
    assert re.findall(r'<article class="clip"[^>]*id="clip-(\w+)"[^>]*?( hidden)?>', html) == [
        ("one", " hidden"),
        ("two", ""),
    ]
    assert 'src="media/one"' in html and html.count('class="frame"') == 4


def test_no_clips_are_an_empty_section():
    assert panel_html([]).startswith('<section class="clips empty"')
