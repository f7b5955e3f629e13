"""Studies: encoders, strategies, approaches to rare classes, label fractions and seeds on tasks, from one file."""
