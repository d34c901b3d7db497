"""The page as a person uses it, in a real Chromium with `tiny`: ``pytest -m browser``.

Needs the packages gradio and playwright and a Chromium of the system (Debian: chromium; elsewhere its path in
VIDEOLLM_CHROMIUM). Pictures of what was seen are kept in build/screenshots.
"""

import asyncio
import json
import os
import re
import shutil
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import cycle, islice
from pathlib import Path

import pytest
import torch

from tests.cli.bad_files import written
from tests.small_model import small_model
from videollm.chat.calls import Evidence
from videollm.evaluation.tool_use import scenes_of, write_film
from videollm.media.read import read_clip
from videollm.media.sampling import FrameSampling
from videollm.media.write import write_video
from videollm.messages import ToolCallPart, ToolResultPart
from videollm.serving.model_worker import ModelChoice, ModelWorker, WorkerLimits

pytestmark = [pytest.mark.browser, pytest.mark.timeout(240)]
playwright = pytest.importorskip("playwright.sync_api", reason="pip install playwright to test the page in a browser")
pytest.importorskip("gradio", reason="pip install 'videollm[demo]' to test the page")

ROOT = Path(__file__).parents[2]
CLIPS = ROOT / "videollm" / "assets" / "clips"
PICTURES = ROOT / "build" / "screenshots"
CHROMIUM = os.environ.get("VIDEOLLM_CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
FLAGS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]  # fmt: skip
DESKTOP = {"viewport": {"width": 1280, "height": 860}}
DARK = {**DESKTOP, "color_scheme": "dark"}
PHONE = {"viewport": {"width": 390, "height": 844}, "device_scale_factor": 2, "is_mobile": True, "has_touch": True}


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """The page on a port of this machine, and the worker under it. It offers `tiny`, and a model that never stops."""
    from videollm.serving.access import hosts_for
    from videollm.serving.listening import address_of, bound, server_of
    from videollm.serving.ui import Page
    from videollm.serving.uploads import UploadStore

    talker = tmp_path_factory.mktemp("models") / "talker"
    model, processor = small_model(context_tokens=16_384)
    with torch.no_grad():  # never the likeliest word: its answers end at the limit
        model.get_output_embeddings().weight[model.config.eos_token_id] = 0.0
    model.save_pretrained(talker)
    processor.save_pretrained(talker)
    choices = [ModelChoice(), ModelChoice(str(talker))]
    worker, store = ModelWorker(choices[0], WorkerLimits(new_tokens=15_000)).start(), UploadStore()
    sock = bound("127.0.0.1", 0)
    page = Page(worker, store, choices)
    server = server_of(page.app(page.rules(hosts_for("127.0.0.1", None), None)))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [sock]}, daemon=True)
    thread.start()
    yield address_of(sock, "127.0.0.1"), worker, store
    server.should_exit = True
    thread.join(30)
    worker.close(0)
    store.close()
    assert not store.folder.exists()


@pytest.fixture(scope="module")
def chromium():
    if CHROMIUM is None:
        pytest.skip("no Chromium on this machine: apt-get install chromium, or name one in VIDEOLLM_CHROMIUM")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


class Visit:
    """A browser with its own cookies, on the page."""

    def __init__(self, chromium, address, options):
        self.context = chromium.new_context(accept_downloads=True, **options)
        self.page = self.context.new_page()
        self.address = address
        self.elsewhere, self.failures = [], []
        self.page.on("request", lambda r: self._noted(r.url))
        self.page.on("pageerror", lambda error: self.failures.append(str(error)))
        self.page.set_default_timeout(60_000)
        self.open()

    def _noted(self, url):
        if not url.startswith((self.address, "data:", "blob:")):
            self.elsewhere.append(url)

    def open(self):
        self.page.goto(self.address)
        self.page.wait_for_selector("#model .model-line:not(.busy)")

    def bring(self, *paths):
        count = self.page.locator(".clip").count()
        self.page.set_input_files("#drop input[type=file]", [str(path) for path in paths])
        self.page.locator(".clip").nth(count + len(paths) - 1).wait_for(state="attached")

    def example(self, number):
        count = self.page.locator(".clip").count()
        self.page.locator(".example").nth(number).click()
        self.page.locator(".clip").nth(count).wait_for(state="attached")

    def ask(self, question):
        """Asks with the keyboard, waits for the end of the answer, and returns its words."""
        count = self.page.locator("#chat small").count()
        self.page.fill("#question textarea", question)
        self.page.press("#question textarea", "Enter")
        self.finished(count + 1)
        return self.answer()

    def finished(self, count):
        self.page.locator("#chat small").nth(count - 1).wait_for()
        self.page.wait_for_selector("#question .submit-button")

    @property
    def answers(self):
        return self.page.locator('#chat [data-testid="bot"]')

    def answer(self, number=-1):
        count = self.answers.count()
        return self.answers.nth(number % count).inner_text().split("\n")[0]

    def told(self, kind):
        """The words of a track, once it is finished."""
        self.page.locator(f".moments:not([hidden]) .track.{kind} .note:not(:has-text('so far'))").wait_for()
        self.page.wait_for_selector("#working", state="hidden")
        return self.page.locator(f".moments:not([hidden]) .track.{kind} .told").all_inner_texts()

    def at(self, seconds, within=0.01):
        """Waits until the player in front is at a second."""
        now = "document.querySelector('.clip:not([hidden]) :is(video, audio)').currentTime"
        self.page.wait_for_function(f"Math.abs({now} - {seconds}) <= {within}")

    def saved(self, link, path):
        with self.page.expect_download() as started:
            link.click()
        started.value.save_as(path)
        return path.read_text()

    @property
    def alert(self):
        return self.page.locator("#alert .alert")

    def picture(self, name, **options):
        PICTURES.mkdir(parents=True, exist_ok=True)
        self.page.wait_for_timeout(500)
        self.page.screenshot(path=PICTURES / f"{name}.png", **options)


@pytest.fixture
def visit(chromium, served):
    visits = []
    with ThreadPoolExecutor(1) as elsewhere:  # playwright runs a loop in this thread
        elsewhere.submit(lambda: asyncio.run(served[1].switch(ModelChoice()))).result()

    def enter(options=DESKTOP):
        visits.append(Visit(chromium, served[0], options))
        return visits[-1]

    yield enter
    for one in visits:
        one.context.close()
        assert one.elsewhere == [], "the page asked another host"
        assert one.failures == [], "a script of the page failed"


@pytest.fixture(scope="module")
def film(tmp_path_factory):
    """Ten minutes of the example clips, one behind the other."""
    shots = [
        read_clip(CLIPS / name, frames=FrameSampling(max_frames=32), sound=None).frames.pixels[:, :96, :96]
        for name in ("two_things.mp4", "cut.mp4", "textures.mp4")
    ]
    turns = cycle(frame for frames in shots for frame in frames)
    path = tmp_path_factory.mktemp("films") / "film.mp4"
    return write_video(path, islice(turns, 4 * 600), fps=4, preset="ultrafast")


@pytest.fixture
def mp4(tmp_path):
    """A purple star grows, a green triangle moves down, something like music is heard at 2.5 s; under another name."""
    return shutil.copy(CLIPS / "two_things.mp4", tmp_path / "holiday.mp4")


@pytest.mark.parametrize(("name", "options"), [("desktop", DESKTOP), ("dark", DARK), ("phone", PHONE)])
def test_a_whole_visit(visit, mp4, name, options):
    one = visit(options)
    page = one.page
    one.picture(f"{name}-1-empty")
    one.bring(mp4)
    assert page.locator(".clip .seen").inner_text() == (
        "The model saw 29 of 72 frames of holiday.mp4 (0.0-7.0 of 7.2 s), heard 7.2 s of 7.2 s."
    )
    assert page.locator(".frame").count() == 29
    assert page.locator(".sound .heard").count() == 1
    one.picture(f"{name}-2-clip")

    assert one.ask("How many things are there?") == "Two."
    assert "green triangle" in one.ask("What do you see?")
    assert "music" in one.ask("Which sound is heard?")
    assert one.ask("When is the sound heard?") == "At 2.5 s."
    assert page.locator("#chat small").last.inner_text().startswith("Saw 29 of 72 frames of holiday.mp4")

    # A time leads the player there, and so do a frame, the sound and the keyboard.
    page.get_by_role("link", name="2.5 s").click()
    one.at(2.5)
    assert page.locator(".frame.here").get_attribute("data-at") == "2.500"
    page.locator(".frame").nth(4).click()
    one.at(1.0)
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Enter")
    one.at(1.2, within=0.1)
    box = page.locator(".sound").bounding_box()
    page.locator(".sound").click(position={"x": box["width"] / 2, "y": 10})
    one.at(3.6, within=0.1)
    assert page.evaluate("document.querySelector('video').readyState") >= 1, "the player has the file"
    one.picture(f"{name}-3-answers")
    if name == "phone":
        one.picture("phone-4-whole", full_page=True)
        wide = page.evaluate("document.documentElement.scrollWidth")
        assert wide <= 390, "nothing is cut off at the side"


@pytest.mark.parametrize(("name", "options"), [("dark", DARK), ("phone", PHONE)])
def test_narrate_chapters_and_find(visit, mp4, tmp_path, name, options):
    one = visit(options)
    page = one.page
    one.bring(mp4)
    page.get_by_role("button", name="Narrate").click()
    told = one.told("narration")
    assert "green triangle" in told[0] and "purple star" in told[0]
    assert told[0].startswith("0:00\u2013") and told[-1].split("\n")[0].endswith("\u20130:07.2"), told

    # The bar, the list and the keyboard lead the player there.
    spans = page.locator(".track.narration .span")
    assert spans.count() == len(told) >= 2
    at = [float(span.get_attribute("data-at")) for span in spans.all()]
    spans.nth(1).click()
    one.at(at[1])
    assert "here" in spans.nth(1).get_attribute("class") and "here" not in spans.nth(0).get_attribute("class")
    page.locator(".track.narration .told").nth(0).click()
    one.at(at[0])
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    one.at(at[1])
    spans.nth(1).focus()
    page.keyboard.press("Home")
    page.keyboard.press("Enter")
    one.at(at[0])

    track = page.locator(".track.narration")
    rows = [json.loads(line) for line in one.saved(track.get_by_text("JSONL"), tmp_path / "a.jsonl").splitlines()]
    assert [row["start_seconds"] for row in rows] == at and rows[0]["video"] == "holiday.mp4"
    assert one.saved(track.get_by_text("SRT"), tmp_path / "a.srt").startswith("1\n00:00:00,000 --> 00:00:")
    assert one.saved(track.get_by_text("VTT"), tmp_path / "a.vtt").startswith("WEBVTT\n\n00:00:00.000 --> ")

    page.get_by_role("button", name="Chapters").click()
    chapters = one.told("chapters")
    assert "green triangle" in chapters[0] and page.locator(".track.chapters .span").count() == len(chapters)

    # What is looked for is found in all clips, by what is heard and by what is seen.
    one.bring(CLIPS / "cut.mp4")
    assert page.locator(".moments:visible").count() == 0, "nothing was told of this clip yet"
    page.get_by_role("textbox", name="Find in the clips").fill("music")
    page.keyboard.press("Enter")
    (heard, *_) = one.told("found")
    assert "holiday.mp4" in heard and "music" in heard, heard
    page.locator(".moments:visible .track.found .told").first.click()
    assert page.locator(".clip:visible .player").get_attribute("aria-label") == "holiday.mp4"
    one.at(page.locator(".moments:visible .track.found .told").first.get_attribute("data-at"))
    page.get_by_role("textbox", name="Find in the clips").fill("a zebra")
    page.keyboard.press("Enter")
    page.get_by_text("nothing fits these words; try others").filter(visible=True).wait_for()
    page.get_by_role("textbox", name="Find in the clips").fill("purple star")
    page.keyboard.press("Enter")
    page.locator(".moments:visible .track.found").get_by_text("purple star").first.wait_for()
    assert "purple star" in one.told("found")[0]
    one.picture(f"{name}-5-timeline", full_page=True)
    if name == "phone":
        assert page.evaluate("document.documentElement.scrollWidth") <= 390, "nothing is cut off at the side"

    one.open()
    page.locator(".clip-tab").first.click()
    assert page.locator(".moments:visible .track").count() == 3, "it is all there after a reload"


def test_a_narration_under_way_is_shown_and_stopped_and_answers_go_on_meanwhile(visit, film):
    one = visit()
    page = one.page
    one.bring(film)
    page.click("#narrate")
    page.locator(".track.narration .told").first.wait_for()
    page.wait_for_selector("progress[value]")
    one.picture("desktop-6-narrating")
    assert "so far" in page.locator(".track.narration .note").inner_text()
    assert one.ask("Is there a cut?")
    assert page.locator("#working").is_visible(), "the narration went on meanwhile"
    page.click("#chapters")
    page.get_by_text("One thing at a time").wait_for()
    # The player is not disturbed, and the keyboard stays where it was.
    page.locator(".track.narration .told").nth(2).click()
    place = float(page.locator(".track.narration .told").nth(2).get_attribute("data-at"))
    one.at(place)
    count = page.locator(".track.narration .told").count()
    page.wait_for_function(f"document.querySelectorAll('.track.narration .told').length > {count}")
    one.at(place)
    assert page.evaluate("document.activeElement.dataset.at") == f"{place:.3f}"
    page.click("#halt")
    page.locator(".note", has_text="stopped at").wait_for()
    page.wait_for_selector("#working", state="hidden")
    assert page.locator(".track.narration .told").count() >= count
    page.click("#narrate")
    page.wait_for_selector("progress[value]")
    page.click("#clear")
    page.wait_for_selector(".example >> visible=true")
    page.wait_for_selector("#working", state="hidden")
    assert page.locator(".moments").count() == 0 and one.alert.count() == 0
    one.example(0)
    page.click("#narrate")
    assert "green triangle" in one.told("narration")[0]


def test_several_clips_and_times_lead_into_the_right_one(visit, mp4):
    one = visit()
    one.bring(mp4)
    assert one.ask("When is the sound heard?") == "At 2.5 s."
    one.bring(CLIPS / "cut.mp4")
    tabs = one.page.locator(".clip-tab")
    assert [tab.strip() for tab in tabs.all_inner_texts()] == ["▶ holiday.mp4", "▶ cut.mp4"]
    assert tabs.nth(1).get_attribute("aria-selected") == "true"
    one.ask("Describe the video.")
    assert (
        one.page.locator("#chat small").last.inner_text().count("saw")
        + one.page.locator("#chat small").last.inner_text().count("Saw")
        == 2
    ), "both clips are shown"
    one.page.get_by_role("link", name="2.5 s").first.click()
    one.at(2.5)
    assert tabs.nth(0).get_attribute("aria-selected") == "true"
    tabs.nth(0).focus()
    one.page.keyboard.press("ArrowRight")
    assert tabs.nth(1).get_attribute("aria-selected") == "true"
    one.picture("desktop-7-two-clips")


def test_an_image_and_a_sound(visit, tmp_path):
    import numpy as np
    from PIL import Image

    from videollm.clips import Waveform
    from videollm.media.write import write_sound

    picture, sound = tmp_path / "red.png", tmp_path / "beep.wav"
    Image.fromarray(np.full((90, 120, 3), (200, 30, 30), np.uint8)).save(picture)
    time_axis = np.arange(32000) / 16000
    write_sound(sound, Waveform((0.5 * np.sin(2 * np.pi * 440 * time_axis))[None].astype(np.float32), 16000))
    one = visit()
    one.bring(picture, sound)
    assert one.page.locator("img.player").count() == 1 and one.page.locator("audio.player").count() == 1
    one.page.wait_for_function("document.querySelector('img.player').naturalWidth == 120")
    one.ask("What do you hear?")
    note = one.page.locator("#chat small").last.inner_text()
    assert "image red.png" in note and "heard 2.0 s of 2.0 s of beep.wav" in note
    one.picture("desktop-8-image-and-sound")


def test_undo_retry_edit_and_clear(visit, served):
    one = visit()
    one.example(0)
    assert one.ask("How many things are there?") == "Two."
    assert one.ask("Which sound is heard?") == "I hear something like music."
    page = one.page
    page.get_by_role("button", name="Undo", exact=True).last.click()
    page.wait_for_function("document.querySelectorAll('#chat small').length == 1")
    assert page.input_value("#question textarea") == "Which sound is heard?"
    page.get_by_role("button", name="Retry", exact=True).last.click()
    page.wait_for_selector("#question .submit-button")
    page.wait_for_function("document.querySelectorAll('#chat small').length == 1")
    assert one.answer() == "Two."
    # The answer has ended, but the list of messages is drawn once more: a click just before goes nowhere.
    page.wait_for_function("!document.querySelector('#chat .generating, #question .stop-button')")
    page.get_by_role("button", name="Edit", exact=True).first.click(delay=100)
    if page.locator("#chat textarea").count() == 0:
        page.get_by_role("button", name="Edit", exact=True).first.click()
    page.locator("#chat textarea").fill("When is the sound heard?")
    page.get_by_role("button", name="Submit", exact=True).last.click()
    page.get_by_role("link", name="2.5 s").wait_for()
    assert one.answers.count() == 1
    _, worker, _ = served
    conversations = set(worker.conversations)
    page.click("#clear")
    page.wait_for_selector(".example >> visible=true")
    assert one.answers.count() == 0 and page.locator(".clip").count() == 0
    assert len(conversations - set(worker.conversations)) == 1


def test_a_model_that_learned_to_call_tools_calls_them(visit, served, tmp_path):
    """And does not once that is taken off."""
    _, worker, _ = served
    write_film(scenes_of(150.0, 7), tmp_path / "film.mp4")
    one = visit()
    page = one.page
    assert "calls tools" in page.locator("#model").inner_text()
    one.bring(tmp_path / "film.mp4")
    page.get_by_text("Settings").first.click()
    assert page.locator("#calls input").is_checked()
    one.ask("What is there at 0:31?")
    page.get_by_role("button", name="look film.mp4, 0:29-0:33").click()
    page.get_by_text("film.mp4 [0:29-0:33] 16 frames").wait_for()
    assert "Rests on [0:29-0:32.8] of film.mp4 (seen)." in page.locator("#chat small").inner_text()
    one.picture("desktop-12-calls")
    page.locator("#calls input").uncheck()
    one.ask("What is there at 0:12?")
    (conversation,) = [c for c in worker.conversations.values() if "film.mp4" in c.files]
    assert [len(exchange.answer.rounds) for exchange in conversation.exchanges] == [2, 0]


def test_calls_of_tools_are_folded_away_and_open_to_look_at(visit, served):
    """The rounds of an answer are put into it here. That they are streamed is tested in `tests/serving/test_ui.py`."""
    _, worker, _ = served
    one = visit()
    page = one.page
    one.example(0)
    assert one.ask("How many things are there?") == "Two."
    (conversation,) = [c for c in worker.conversations.values() if "two_things.mp4" in c.files and c.exchanges]
    call = ToolCallPart("narrate", {"video": "two_things.mp4", "start_seconds": 2.0, "end_seconds": 6.0}, "1")
    told = ToolResultPart("1", "[0:02-0:06] a green triangle moves down and a purple star grows.")
    answer = replace(
        conversation.exchanges[-1].answer, rounds=(call, told), used=(Evidence("two_things.mp4", 2.0, 6.0, "narrated"),)
    )
    conversation.exchanges[-1] = replace(conversation.exchanges[-1], answer=answer)
    one.open()
    fold = page.get_by_role("button", name="narrate two_things.mp4, 0:02-0:06")
    assert not page.get_by_text("a purple star grows").is_visible()
    fold.click()
    page.get_by_text("a purple star grows").wait_for()
    page.get_by_role("link", name="0:06").first.click()
    one.at(6.0)
    one.picture("desktop-11-tools")
    assert "Rests on [0:02-0:06] of two_things.mp4 (narrated)" in page.locator("#chat small").inner_text()
    # What is below still belongs to its question.
    assert one.ask("Which sound is heard?") == "I hear something like music."
    page.get_by_role("button", name="Undo", exact=True).last.click()
    page.wait_for_function("document.querySelectorAll('#chat small').length == 1")
    page.get_by_role("button", name="Retry", exact=True).last.click()
    fold.wait_for(state="detached")
    one.finished(1)
    assert one.answer() == "Two."


def test_stop_another_model_and_leaving(visit, served):
    _, worker, _ = served
    one = visit()
    page = one.page
    one.example(0)
    page.click("#settings > button")
    page.get_by_role("combobox", name="Model").click()
    page.get_by_role("option", name="talker").click()
    page.get_by_text("talker in full precision").wait_for()
    one.picture("desktop-9-settings", full_page=True)
    page.get_by_label("number input for Longest answer, tokens").fill("14992")
    page.fill("#question textarea", "Go on")
    page.press("#question textarea", "Enter")
    page.wait_for_function("document.querySelector('#chat [data-testid=bot] p')?.innerText.length > 20")
    page.press("#question textarea", "Escape")
    one.finished(1)
    note = page.locator("#chat small").inner_text()
    assert note.endswith("Stopped."), note
    # Whoever closes the page is not answered any more.
    page.fill("#question textarea", "Go on")
    page.press("#question textarea", "Enter")
    page.wait_for_function("document.querySelectorAll('#chat [data-testid=bot]').length == 2")
    assert worker.answering == 1
    left = time.monotonic()
    one.context.close()
    while worker.answering and time.monotonic() < left + 20:
        time.sleep(0.02)
    assert worker.answering == 0
    print(f"\nthe answer ended {time.monotonic() - left:.2f} s after the page was closed")
    assert [turn.finish for turn in (e.answer for c in worker.conversations.values() for e in c.exchanges)][
        -1
    ] == "stopped"


def test_export(visit, mp4, tmp_path):
    one = visit()
    one.bring(mp4)
    one.ask("When is the sound heard?")
    text = one.saved(one.page.get_by_role("link", name="Markdown"), tmp_path / "conversation.md")
    assert "**When is the sound heard?**\n\nAt 2.5 s.\n\n> Saw 29 of 72 frames of holiday.mp4" in text
    record = json.loads(
        one.saved(one.page.get_by_role("link", name="JSON", exact=True), tmp_path / "conversation.json")
    )
    assert record["model"] == "tiny" and record["clips"] == ["holiday.mp4"]
    assert record["turns"][0]["answer"] == "At 2.5 s."


def test_errors_are_a_sentence_and_the_page_goes_on(visit, tmp_path, served):
    _, _, store = served
    one = visit()
    before = store.held_bytes
    one.page.set_input_files(
        "#drop input[type=file]", str(written(tmp_path, "broken.mp4", b"\0\0\0\x18ftypisom" + bytes(999)))
    )
    one.alert.wait_for()
    assert one.alert.inner_text().startswith("Broken.mp4: ") or one.alert.inner_text().startswith("broken.mp4: ")
    assert "\n" not in one.alert.inner_text().strip()
    assert store.held_bytes == before, "the broken file was kept"
    one.picture("desktop-10-broken-upload")
    one.page.press("#question textarea", "Enter")
    one.page.get_by_text("Type a question first.").wait_for()
    one.example(0)
    assert one.ask("How many things are there?") == "Two."
    assert one.alert.count() == 0


def test_after_a_reload_the_conversation_is_there_and_nobody_else_sees_it(visit, mp4, served):
    one = visit()
    one.bring(mp4)
    one.ask("When is the sound heard?")
    source = one.page.locator("video").get_attribute("src")
    one.open()
    one.page.get_by_role("link", name="2.5 s").wait_for()
    assert one.page.locator(".frame").count() == 29
    assert one.ask("How many things are there?") == "Two."
    two = visit()
    assert two.page.locator(".clip").count() == 0
    assert two.page.request.get(f"{served[0]}/{source}").status == 404
    ours = one.page.request.get(f"{served[0]}/{source}", headers={"range": "bytes=0-99"})
    assert ours.status == 206 and len(ours.body()) == 100
    assert two.page.request.get(f"{served[0]}/export/conversation.json").status == 404


def test_words_of_a_person_and_of_a_file_are_words(visit, tmp_path):
    name = "<img src=x onerror=alert(1)> & 'q'.mp4"
    path = shutil.copy(CLIPS / "two_things.mp4", tmp_path / name.replace("/", ""))
    one = visit()
    one.page.on("dialog", lambda dialog: pytest.fail("a script ran"))
    one.bring(path)
    one.ask("<script>alert(2)</script> ![x](https://example.org/x.png) How many things are there?")
    assert one.page.locator(".clip img[src=x]").count() == 0
    assert re.search(r"img src", one.page.locator(".seen").inner_text())
