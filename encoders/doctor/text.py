"""The doctor's report for people."""

from typing import Any

SPARKLINE_BLOCKS = "▁▂▃▄▅▆▇█"
MAX_GROUPS_PRINTED, MAX_VALUES_PRINTED = 5, 6


def print_report(report: dict[str, Any]) -> None:
    """Prints the report: what is in the store, its labels, and what was found."""
    from rich.markup import escape
    from rich.table import Table

    from encoders.runtime.cli import make_console

    out = make_console()
    table = Table(show_header=False, box=None, pad_edge=False)
    for name, value in report_lines(report):
        table.add_row(f"[bold]{name}[/bold]", escape(value))
    out.print(table)
    if report["labels"]:
        labels = Table("label", "kind", "known", "unknown", "values", *report["splits"]["splits"], title="labels")
        for row in report["labels"]:
            each = [format_distribution(row["by_split"].get(split, {})) for split in report["splits"]["splits"]]
            cells = [row["label"], row["kind"], str(row["known"]), str(row["unknown"]), format_distribution(row["spread"]), *each]
            labels.add_row(*map(escape, cells))
        out.print(labels)
    if not report["findings"]:
        out.print("[green]nothing found[/green]")
        return
    found = Table("finding", "what it is", title=f"{len(report['findings'])} findings")
    for finding in report["findings"]:
        found.add_row(finding["finding"], finding["meaning"])
    out.print(found)
    for example in list_examples(report):
        out.print(example, soft_wrap=True, markup=False)


def report_lines(report: dict[str, Any]) -> list[tuple[str, str]]:
    """Name and value of everything but labels and findings."""
    store, lay, light, people = (report[k] for k in ("store", "layout", "intensity", "patients"))
    shape = " x ".join(map(str, store["shape"])) if store["shape"] else "sizes vary"
    near = report["near"]
    files = f" in {store['files']} files" if store["files"] > 1 else ""
    unknown = people["images_without_patient"]
    alone = f"; {unknown} images count as a patient of their own" if unknown else ""
    several = f"{people['with_several']} with several images, at most {people['most']}, median {people['median']:g}"
    splits = ", ".join(f"{k}: {v['images']} images of {v['patients']} patients" for k, v in report["splits"]["splits"].items())
    told = f"{near['pairs']} pairs within {near['radius']} bits" if near["looked"] else "not looked for (--near)"
    return [
        ("images", f"{store['images']}{files}, {shape} {store['dtype']}, {store['modality']}, data set {store['dataset']!r}"),
        ("geometry", ", ".join(f"{k} {v}" for k, v in store["geometry"].items() if v is not None)),
        ("unit", f"(value - {store['unit']['offset']:g}) / {store['unit']['scale']:g}; {store['unit'].get('meaning', '')}"),
        ("values", f"{sparkline(light['histogram'])}  0 to 1 (heights: square roots), {light['images']} images"),
        ("", f"mean {light['mean']:.3f}, std {light['std']:.3f}; black {light['black']:.1%}, white {light['white']:.1%}"),
        ("patients", f"{people['patients']}; {several}{alone}"),
        ("splits", splits or "none stored"),
        ("copies", f"{report['exact']['groups']} groups of identical images ({report['exact']['images']} images); near: {told}"),
        ("layout", f"{lay['codec']}, {lay['bytes'] / 1e6:.1f} MB, {lay['bytes_per_image'] / 1e3:.1f} kB an image"),
        ("read rate", f"{lay['images_per_s']:.0f} images/s, {lay['mb_per_s']:.0f} MB/s ({lay['read']} single images in random order)"),
    ]


def sparkline(shares: list[float]) -> str:
    """A histogram as text, by the square root of each share: a black background would flatten the rest."""
    roots = [share**0.5 for share in shares]
    top = max(roots) or 1.0
    return "".join(SPARKLINE_BLOCKS[round(root / top * (len(SPARKLINE_BLOCKS) - 1))] if root else " " for root in roots)


def format_distribution(values: dict[str, Any]) -> str:
    """Values of a label in a few words."""
    if not values:
        return "none known"
    if "prevalence" in values:
        return f"{values['positive']} positive ({values['prevalence']:.1%})"
    if "mean" in values and "min" in values:
        return f"{values['min']:g} to {values['max']:g}, mean {values['mean']:g}"
    most = sorted(values.items(), key=lambda item: -item[1])
    more = f", {len(most) - MAX_VALUES_PRINTED} more" if len(most) > MAX_VALUES_PRINTED else ""
    return ", ".join(f"{name} {n}" for name, n in most[:MAX_VALUES_PRINTED]) + more


def list_examples(report: dict[str, Any]) -> list[str]:
    """The first few names for what was found; all of them are in --json."""
    told = [f"constant: {key}" for key in report["constant"][:MAX_GROUPS_PRINTED]]
    told += [f"identical: {' = '.join(keys)}" for keys in report["exact"]["keys"][:MAX_GROUPS_PRINTED]]
    told += [f"near: {a} ~ {b} ({bits} bits)" for a, b, bits in report["near"]["nearest"][:MAX_GROUPS_PRINTED]]
    who = report["splits"]["who"]
    return told + (
        [f"in several splits: {', '.join(who[:MAX_GROUPS_PRINTED])}{', ...' if len(who) > MAX_GROUPS_PRINTED else ''}"] if who else []
    )
