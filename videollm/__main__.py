"""`python -m videollm` is `videollm`."""

import sys

from videollm.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
