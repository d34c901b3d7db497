"""What it costs to decode training media in a process with limits, against in the loader's own process.

A file that crashes or hangs a decoder ends only the process that decodes it, so training items come from
`open_clip`. Processor time of both ways, clip by clip in turn, so that a busy machine is busy for both; that of
`open_clip` counts the server, its forks and the caller.

    python scripts/bench/training_media.py [FILE ...] [--rounds N]
"""

import argparse
import os
import resource
import statistics
from pathlib import Path

from videollm.media import decode_worker
from videollm.media.decode_worker import close_server, open_clip, read_clip
from videollm.media.sampling import FrameSampling, SoundSampling

CLIPS = sorted((Path(__file__).parents[2] / "videollm" / "assets" / "clips").glob("*.mp4"))
SAMPLINGS = {"8 frames at 224": FrameSampling("uniform", 8, squash_px=224), "4 a second": FrameSampling("rate")}


def processor_seconds() -> float:
    """Of this process, and of the server and the forks that it has waited for."""
    own = resource.getrusage(resource.RUSAGE_SELF)
    total = own.ru_utime + own.ru_stime
    server = decode_worker._server._process
    if server is not None:
        fields = Path(f"/proc/{server.pid}/stat").read_text().rsplit(")", 1)[1].split()
        total += sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")
    return total


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="*", type=Path, default=CLIPS, help="default: the bundled clips")
    parser.add_argument("--rounds", type=int, default=10)
    args = parser.parse_args()
    decode_worker.IDLE_SECONDS = 3600.0  # the time of a server that ended would be lost
    print(f"{'clip':<28}{'frames':<18}{'apart':>9}{'in process':>12}{'ratio':>8}   (ms of processor, median)")
    for path in args.files:
        for name, sampling in SAMPLINGS.items():
            spent = {open_clip: [], read_clip: []}
            for read in spent:
                read(path, frames=sampling, sound=SoundSampling())
            for _ in range(args.rounds):
                for read, times in spent.items():
                    before = processor_seconds()
                    for _ in range(3):  # the server's clock ticks in hundredths of a second
                        read(path, frames=sampling, sound=SoundSampling())
                    times.append((processor_seconds() - before) / 3 * 1000)
            apart, inside = (statistics.median(times) for times in spent.values())
            print(f"{path.name[:26]:<28}{name:<18}{apart:>9.1f}{inside:>12.1f}{apart / inside:>8.2f}")
    close_server()


if __name__ == "__main__":
    main()
