"""``python -m pipeline`` is the command ``synthcohort``."""

from pipeline.cli import main

main()
