"""``python -m edc``: the command line without an installed console script."""

from edc.cli import main

main()
