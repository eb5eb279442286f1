"""The command line as ``python -m dreamer_bird``."""

import sys

from dreamer_bird.cli import main

if __name__ == "__main__":
    sys.exit(main())
