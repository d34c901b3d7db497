"""What is told of clips over their time, as HTML and as files."""

import json
import re

from videollm.serving.clip_view import ClipView
from videollm.serving.moment_view import Span, Track, moments_html, saved_as

FILM = ClipView("film", "a.mp4", "video", 80.0, "saw it", (), (), ())
OTHER = ClipView("other", "b <i>.mp4", "video", 10.0, "saw it", (), (), ())
NARRATION = Track("narration", "Narration", (Span("film", 0, 20, "a <b>star"), Span("film", 20, 80, "a cut")), "by x")


def test_a_track_is_a_bar_and_a_list_that_lead_to_the_same_seconds():
    html = moments_html({"film": [NARRATION]}, [FILM, OTHER])
    assert html.count("<section") == 1 and 'data-clip="film"' in html
    bar = re.findall(
        r'class="span" data-clip="film" data-at="([\d.]+)" data-until="([\d.]+)".*?left:(\S+);width:(\S+)"', html
    )
    assert bar == [("0.000", "20.000", "0.000%", "25.000%"), ("20.000", "80.000", "25.000%", "75.000%")]
    told = re.findall(r'class="told" data-clip="film" data-at="([\d.]+)".*?class="when">([^<]*)<', html)
    assert told == [("0.000", "0:00\u20130:20"), ("20.000", "0:20\u20131:20")]
    # Words stand in the bar where there is room for them.
    short = Track("narration", "Narration", (Span("film", 0, 9, "flash"), Span("film", 9, 80, "long")))
    assert re.findall(r'class="span".*?>([^<]*)</button>', moments_html({"film": [short]}, [FILM])) == ["", "long"]
    # One of each row is reached by Tab.
    assert re.findall(r'class="(?:span|told)"[^>]*tabindex="(-?\d)"', html) == ["0", "-1", "0", "-1"]
    assert "<b>star" not in html and "by x" in html


def test_moments_of_several_clips_are_listed_under_each_and_drawn_where_they_are():
    found = Track("found", "Found", (Span("other", 5, 15, "best"), Span("film", 40, 60, "next")))
    html = moments_html({"film": [found], "other": [found]}, [FILM, OTHER])
    of_film, of_other = html.split("</section>")[:2]
    assert of_film.count('class="span"') == of_other.count('class="span"') == 1
    assert of_film.count('class="told"') == of_other.count('class="told"') == 2
    assert '<em class="whose">b &lt;i&gt;.mp4</em> best' in of_film and of_film.count("whose") == 1
    assert '<em class="whose">a.mp4</em> next' in of_other
    # The best first in the list; beyond the end of a clip nothing is drawn.
    assert of_film.index("</em> best") < of_film.rindex(">next")
    assert "export/" not in html


def test_nothing_told_is_nothing_shown():
    assert moments_html({}, [FILM]) == "" and moments_html({"film": []}, [FILM]) == ""
    assert "Save as" not in moments_html({"film": [Track("narration", "Narration", (), "nothing to tell")]}, [FILM])


def test_files():
    rows = [json.loads(line) for line in saved_as("jsonl", NARRATION, "a.mp4").splitlines()]
    assert rows[0] == {"video": "a.mp4", "start_seconds": 0, "end_seconds": 20, "text": "a <b>star"}
    assert len(rows) == 2
    assert saved_as("srt", NARRATION, "a.mp4").startswith("1\n00:00:00,000 --> 00:00:20,000\n")
    assert saved_as("vtt", NARRATION, "a.mp4").startswith("WEBVTT\n\n00:00:00.000 --> 00:00:20.000\na &lt;b&gt;star\n")
