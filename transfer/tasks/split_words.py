"""Words for the parts of a split: `Train_set`, `valid`, `eval`, `dev`, `0`, `1`, `2` -> train, val, test, where the meaning is unambiguous.

`eval` and `holdout` name whichever of val and test the other words leave free. 0, 1 and 2 together are train, val and test. Words that may
mean several things (`dev` beside `val`, `test1` beside `test2`) have no mapping, and the user has to say what they are.
"""

import re
import unicodedata
from collections import Counter
from collections.abc import Collection, Mapping

from encoders.runtime.errors import InputError
from transfer.tasks.options import PARTS, Part

STEMS: dict[str, str] = {
    **dict.fromkeys(("train", "training", "tr", "trn"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "validate", "validating", "va", "vl"), "val"),
    **dict.fromkeys(("dev", "devel"), "dev"),
    **dict.fromkeys(("tune", "tuning"), "tune"),
    **dict.fromkeys(("eval", "evaluation", "evaluate"), "eval"),
    **dict.fromkeys(("holdout", "heldout"), "holdout"),
    **dict.fromkeys(("test", "testing", "te", "tst", "ts"), "test"),
    **dict.fromkeys(("trainval", "trainvalid", "trainvalidation", "trainingvalidation", "traindev"), "trainval"),
}
NOISE = {
    "set",
    "sets",
    "data",
    "dataset",
    "split",
    "splits",
    "image",
    "images",
    "img",
    "imgs",
    "list",
    "part",
    "subset",
    "partition",
    "official",
    "csv",
    "txt",
}
NUMBERED: dict[float, Part] = {0.0: "train", 1.0: "val", 2.0: "test"}
MAX_VALUES_SHOWN = 10


def find_parts(texts: Collection[str], taken: Collection[str] = (), numbered: bool = True) -> dict[str, Part] | None:
    """Text -> part for the values of a split column; None if it is not clear what one of them means.

    texts: the known values.  taken: parts that other values are known to be.  numbered: whether 0, 1, 2 may be parts, not folds."""
    if numbers := read_numbers(texts):
        return {text: NUMBERED[n] for text, n in numbers.items()} if numbered and not taken and {*numbers.values()} == {*NUMBERED} else None
    tokens = {text: split_tokens(text) for text in texts}
    common = set.intersection(*map(set, tokens.values())) - {*STEMS} if len(tokens) > 1 else set[str]()
    stems = {text: find_stem([token for token in parts if token not in common]) for text, parts in tokens.items()}
    if None in stems.values() or has_several(tokens, stems):
        return None
    part_of = resolve_stems({stem for stem in stems.values() if stem}, taken)
    return None if part_of is None else {text: part_of[stem] for text, stem in stems.items() if stem}


def resolve_stems(stems: set[str], taken: Collection[str]) -> dict[str, Part] | None:
    """Stem -> part; None if two stems could mean the same part, or if one could mean two parts."""
    part_of: dict[str, Part] = {part: part for part in PARTS if part in stems}
    used = {*part_of, *taken}
    if "trainval" in stems:
        if used & {"train", "val"} or stems & {"dev", "tune"}:
            return None
        part_of["trainval"] = "train"
        used |= {"train"}
    early, late = sorted(stems & {"dev", "tune"}), sorted(stems & {"eval", "holdout"})
    if len(early) > 1 or len(late) > 1 or (early and "val" in used):
        return None
    if early:
        part_of[early[0]] = "val"
        used.add("val")
    if late:
        free = [part for part in PARTS[1:] if part not in used]
        if len(free) != 1 or (late[0] == "holdout" and free[0] != "test"):
            return None
        part_of[late[0]] = free[0]
    return part_of


def read_numbers(texts: Collection[str]) -> dict[str, float]:
    """The numbers that all texts are; {} if one is not a number."""
    try:
        return {text: float(text) for text in texts}
    except ValueError:
        return {}


def split_tokens(text: str) -> list[str]:
    """The words and numbers in a text, in lower case: `TrainSet_2` as train, set, 2."""
    spaced = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", unicodedata.normalize("NFKC", text))
    return re.findall(r"[^\W\d_]+|\d+", spaced.casefold())


def find_stem(tokens: list[str]) -> str | None:
    """The stem that the words name, without numbers and words such as `set`; None if they name none or several."""
    words = [token for token in tokens if not token.isdigit() and token not in NOISE]
    joined = "".join(words)
    bare = re.sub(rf"({'|'.join(sorted(NOISE, key=len, reverse=True))})$", "", joined)
    return STEMS.get(joined) or STEMS.get(bare)


def has_several(tokens: Mapping[str, list[str]], stems: Mapping[str, str | None]) -> bool:
    """Whether values that differ in a number, such as test1 and test2, have the same stem."""
    numbers: dict[str | None, set[tuple[str, ...]]] = {}
    for text, parts in tokens.items():
        numbers.setdefault(stems[text], set()).add(tuple(token for token in parts if token.isdigit()))
    return any(len(each) > 1 for each in numbers.values())


def describe_parts(source: str, part_of: Mapping[str, str]) -> list[str]:
    """A sentence about the words that are not the names of their parts; [] if all are."""
    if all(text.strip().lower() == part for text, part in part_of.items()):
        return []
    ordered = sorted(part_of.items(), key=lambda pair: ((*PARTS, "").index(pair[1]), pair[0]))
    words = ", ".join(f"{text!r} = {part or 'excluded'}" for text, part in ordered)
    return [f"split column {source!r}: {words}"]


def unclear_split_error(source: str, counts: Counter[str]) -> InputError:
    """The error for values of a split column that are not clear, listing them all, with the ways out."""
    example = min(counts) if counts else "VALUE"
    return InputError(
        f"split column {source!r} holds {describe_split_values(counts)}; it is not clear which are train, val and test. Say it with "
        f"--split-value PART=VALUE for each, e.g. --split-value test={example} (exclude=VALUE leaves images out), or pass "
        "--split-column none for a random split by patient"
    )


def describe_split_values(counts: Counter[str]) -> str:
    """`'train' 812, 'valid' 90`."""
    shown = ", ".join(f"{text!r} {n:,}" for text, n in counts.most_common(MAX_VALUES_SHOWN))
    return shown + (f" and {len(counts) - MAX_VALUES_SHOWN} more values" if len(counts) > MAX_VALUES_SHOWN else "")
