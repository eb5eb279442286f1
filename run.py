"""Trains Dreamer, BIRD and Soft-BIRD from pixels: ``python run.py --help``."""

# Worker processes import this file again: it must not import anything then.
if __name__ == "__main__":
    import sys

    from dreamer_bird.cli import main

    sys.exit(main())
