"""``python -m tlkit``, and what `accelerate launch -m tlkit` starts several of."""

from tlkit.cli.app import main

main()
