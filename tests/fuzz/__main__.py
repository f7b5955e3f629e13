"""`python -m tests.fuzz`: mutated inputs for every reader, and the table of how they ended."""

import sys

from tests.fuzz.runner import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
