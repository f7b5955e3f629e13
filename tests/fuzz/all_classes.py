"""All classes of inputs, imported with everything that they use: what the server of forked processes imports once."""

from tests.fuzz.harness import find_classes

CLASSES = find_classes()
