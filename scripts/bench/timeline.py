"""An hour in a conversation against five minutes: memory, and the work up to the first word of a second question.

Both films are cut into segments of 20 s; each question is shown those that a search found, here as many for both, since
the index is measured elsewhere. The two sessions take turns; time is that of the processor, so that a busy machine does
not count. The model is that of midsize.json with random weights (see turns.py).

    python scripts/bench/timeline.py [--rounds N] [--threads N]
"""

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from turns import midsize, proportion

from videollm.chat.session import ChatSession
from videollm.clips import Waveform
from videollm.media.write import write_video

GOAL = 1.2
MINUTES = (5, 60)
FPS = 2.0
QUESTION = "What happens in the video after the {} scene?"


def film(path: Path, minutes: int) -> Path:
    """Slowly changing colours with a quiet hum, one picture each half second."""

    def pictures():
        for number in range(int(minutes * 60 * FPS)):
            row = (np.arange(96) * 2 + number * 3) % 256
            yield np.broadcast_to(row.astype(np.uint8)[None, :, None], (96, 96, 3)).copy()

    hum = np.sin(np.arange(minutes * 60 * 8000) * 0.3).astype(np.float32)[None] * 0.1
    return write_video(path, pictures(), fps=FPS, waveform=Waveform(hum, 8000))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, help="default: as many as torch takes")
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    model, processor = midsize()
    print(proportion(model))
    second: dict[int, list[float]] = {minutes: [] for minutes in MINUTES}
    sessions: dict[int, ChatSession] = {}
    with tempfile.TemporaryDirectory() as folder:
        for minutes in MINUTES:
            path = film(Path(folder) / f"{minutes}.mp4", minutes)
            sessions[minutes] = ChatSession(model, processor, max_new_tokens=8)
            # Found: the last minute of the film, which is farthest from its start.
            sessions[minutes].watch(path, choose=lambda words, m=minutes: [(60.0 * m - 60, 60.0 * m)])
            sessions[minutes].ask(QUESTION.format("first"))
        for number in range(args.rounds + 1):  # the first round warms up
            for minutes, session in sessions.items():
                start = time.process_time()
                answer = session.ask(QUESTION.format(f"{number}th"), max_new_tokens=1)
                if number:
                    second[minutes].append(time.process_time() - start)
                shown = answer.timings
                session.undo()
    memory = {minutes: session.memory_bytes for minutes, session in sessions.items()}
    for minutes in MINUTES:
        taken = second[minutes]
        print(
            f"{minutes:>2} minutes: second question, {statistics.median(taken):.3f} s of work "
            f"[{min(taken):.3f}-{max(taken):.3f}]; the session holds {memory[minutes] / 2**20:.1f} MB"
        )
    read, clips = f"{shown.prefilled_tokens} of {shown.prompt_tokens} tokens", shown.encoded_clips
    print(f"the second question read {read} and {clips} clips")
    few, many = MINUTES
    latency = statistics.median(b / a for a, b in zip(second[few], second[many], strict=True))
    held = memory[many] / memory[few]
    met = latency <= GOAL and held <= GOAL
    print(f"an hour to five minutes: work {latency:.2f}, memory {held:.2f}; goal {GOAL}: {'met' if met else 'MISSED'}")
    sys.exit(not met)


if __name__ == "__main__":
    main()
