"""`python -m edc.tracking`: sends the spools and says what was sent. Runs start it in the background."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from edc.tracking.files import DEFAULT_ROOT
from edc.tracking.sender import drain


def main() -> int:
    """Returns 1 when something could not be sent."""
    parser = argparse.ArgumentParser(prog="python -m edc.tracking", description=__doc__)
    parser.add_argument("--root", type=Path, default=DEFAULT_ROOT, help="folder of the spools")
    parser.add_argument(
        "--watch", type=float, default=0.0, metavar="S", help="follow live runs; stop S s after the last"
    )
    parser.add_argument("--wait", type=float, default=0.0, metavar="S", help="wait S s for another sender to end")
    options = parser.parse_args()
    if options.watch > 0:
        os.nice(10)  # it works beside the runs it follows
    summary = drain(options.root, watch=options.watch, wait=options.wait)
    print(summary)
    return int(summary.error is not None)


if __name__ == "__main__":
    sys.exit(main())
