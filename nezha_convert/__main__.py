"""``python -m nezha_convert``."""

from .cli import main

main()
