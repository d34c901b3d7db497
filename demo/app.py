"""The page: ``python demo/app.py`` is ``videollm demo``, with the same flags."""

import sys

from videollm.cli.main import main

if __name__ == "__main__":
    sys.exit(main(["demo", *sys.argv[1:]]))
