"""``python -m edc.cli``."""

from edc.cli import main

main()
