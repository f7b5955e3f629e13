"""`python -m transfer` is the command `transfer`."""

from transfer.cli.main import main

main()
