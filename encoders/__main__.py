"""`python -m encoders` is the command `encoders`."""

from encoders.cli.main import main

main()
