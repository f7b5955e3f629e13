"""The classes of a task in plain words.

A binary task on a column of text has a class such as `view=PA`; a page says `PA` and `not PA`.
"""

AFFIRMATIONS = {"1", "yes", "y", "true", "t", "positive", "pos", "present", "abnormal"}


def plain_class(name: str) -> str:
    """`PA` for `view=PA`, `pneumonia` for `pneumonia=yes`, `grade 3` for `grade=3`; any other name as it is."""
    column, equals, value = name.partition("=")
    if not equals or not column or not value:
        return name
    if value.casefold() in AFFIRMATIONS:
        return column
    return value if any(letter.isalpha() for letter in value) else f"{column} {value}"


def negative_class(name: str) -> str:
    """The other class of a binary task: `not PA` for `view=PA`."""
    return f"not {plain_class(name)}"
