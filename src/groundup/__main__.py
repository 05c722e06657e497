"""``python -m groundup`` is the command line."""

from groundup.cli import main

main()
