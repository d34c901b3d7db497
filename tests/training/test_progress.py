"""What a run shows: lines in a file, a bar on a terminal, speeds in the log; boards that are not installed."""

import importlib.util
import json
import re

import pytest

from tests.training.toy_run import toy_run
from videollm.errors import MissingDependencyError
from videollm.training.progress import Progress, boards


def test_lines_where_the_output_goes_into_a_file(tmp_path, capsys):
    ledger = tmp_path / "skipped.jsonl"
    entry = json.dumps({"source": "webvid", "index": 3, "reason": "broken media"})
    # The same sample twice, another one, and a line that a killed process left.
    ledger.write_text(f'{entry}\n{entry}\n{entry.replace("3", "4")}\n{{"source": "webvid", "ind')
    trainer = toy_run(tmp_path / "run", [Progress("toy", ledger, bar=False)])
    shown = capsys.readouterr()
    assert shown.err == ""
    steps = [line for line in shown.out.splitlines() if ": step " in line]
    assert [re.match(r"toy: step (\d) of 6; ", line)[1] for line in steps] == ["2", "4", "6"]
    for line, log in zip(steps, trainer.state.log_history, strict=False):
        assert f"loss {log['loss']:.3f} (cc3m {0.5 * log['loss']:.3f}, webvid {1.5 * log['loss']:.3f})" in line
        speeds = r"; [\d,.]+ samples/s; [\d,.]+ tokens/s; 2 skipped; learning rate \d\.\d\de-\d\d; 0"
        assert re.search(speeds, line), line
        assert line.endswith(" left") and "train_" not in line
    assert shown.out.count("is whole") == 2


def test_speeds_are_in_the_history(tmp_path, capsys):
    """Eight samples a step: two batches of four. Tokens: one each. Seconds go on where an earlier session ended."""
    first = toy_run(tmp_path / "run", [Progress("toy", bar=False)])
    logs = [log for log in first.state.log_history if "loss" in log]
    for log in logs:
        assert log["samples_per_second"] == pytest.approx(8 * log["step"] / log["seconds"])
        assert log["tokens_per_second"] == pytest.approx(log["samples_per_second"])
    assert [log["seconds"] for log in logs] == sorted(log["seconds"] for log in logs)

    again = toy_run(tmp_path / "run", [Progress("toy", bar=False)], resume="checkpoint-3")
    assert "goes on from step 3 of 6" in capsys.readouterr().out
    resumed = [log for log in again.state.log_history if "loss" in log]
    assert [log["step"] for log in resumed] == [2, 4, 6]
    kept = json.loads((tmp_path / "run" / "checkpoint-3" / "trainer_state.json").read_text())["log_history"]
    assert resumed[0] == kept[0] and resumed[1]["seconds"] > kept[0]["seconds"]


def test_a_bar_on_a_terminal(tmp_path, capsys):
    toy_run(tmp_path / "run", [Progress("toy", bar=True)])
    shown = capsys.readouterr()
    assert shown.out == ""
    last = re.split(r"[\r\n]+", shown.err.strip())[-1]
    assert re.match(r"toy 100%\|█+\| 6/6 \d\d:\d\d<\d\d:\d\d, loss [\d.]+ \(cc3m", last), last
    assert "samples/s" in last and "skipped" not in last


def test_nothing_on_other_ranks(tmp_path, capsys):
    class Elsewhere(Progress):
        """What `Progress` is told on a rank other than 0."""

        def on_train_begin(self, args, state, control, **kwargs):
            state.is_world_process_zero = False
            super().on_train_begin(args, state, control, **kwargs)

    toy_run(tmp_path / "run", [Elsewhere("toy", bar=True)])
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("name", ["tensorboard", "wandb"])
def test_a_board_that_is_missing_is_one_line(name, tmp_path):
    if importlib.util.find_spec(name) is not None:
        pytest.skip(f"{name} is installed here")
    with pytest.raises(MissingDependencyError, match=f"{name}, which is not installed; pip install") as caught:
        boards([name], tmp_path)
    assert "\n" not in str(caught.value)


def test_tensorboard_gets_losses_and_speeds(tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    toy_run(tmp_path / "run", [Progress("toy", bar=False), *boards(["tensorboard"], tmp_path / "run")])
    events = EventAccumulator(str(tmp_path / "run" / "tensorboard"))
    events.Reload()
    assert {"train/loss", "train/loss/webvid", "train/samples_per_second"} <= set(events.Tags()["scalars"])
    assert [event.step for event in events.Scalars("train/loss/webvid")] == [2, 4, 6]
