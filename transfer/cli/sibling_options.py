"""Options of `transfer bench` in the lines of its siblings: left out where they have no effect, otherwise refused with what to write."""

SAVED = "records are read, nothing is computed"
ONE_RECORD = {"--device": SAVED, "--precision": SAVED, "--again": SAVED, "--batch": SAVED, "--workers": SAVED, "--near": SAVED}
WITHOUT_EFFECT = {"compare": ONE_RECORD, "report": ONE_RECORD}
ADVICE: dict[str, dict[str, str]] = {
    "bench": {"--name": "`transfer submit` has names for benchmarks; results here are records, which need none"},
}
