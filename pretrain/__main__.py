"""`python -m pretrain` is the command `pretrain`."""

from pretrain.cli.main import main

main()
