"""`make bench`: one table of the project's speed against what a user would use instead, and curves of growth with the number of images."""
