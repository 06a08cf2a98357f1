"""`python -m equipoise`: the command line, also for `accelerate launch -m equipoise`."""

from equipoise.cli import main

main()
