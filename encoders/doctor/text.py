"""The doctor's report as text."""

from encoders.doctor.report import ContentSummary, Distribution, DoctorReport

SPARKLINE_BLOCKS = "▁▂▃▄▅▆▇█"
MAX_GROUPS_PRINTED, MAX_VALUES_PRINTED = 5, 6


def print_report(report: DoctorReport) -> None:
    """Prints the report: the store, its labels, and the findings."""
    from rich.table import Table
    from rich.text import Text

    from encoders.runtime.cli import make_console

    out = make_console()
    table = Table(show_header=False, box=None, pad_edge=False)
    for name, value in report_lines(report):
        table.add_row(Text(name, style="bold"), value)
    out.print(table)
    if report["labels"]:
        labels = Table("label", "kind", "known", "unknown", "values", *report["splits"]["splits"], title="labels")
        for row in report["labels"]:
            by_split = [format_distribution(row["by_split"].get(split, {})) for split in report["splits"]["splits"]]
            cells = [row["label"], row["kind"], str(row["known"]), str(row["unknown"]), format_distribution(row["spread"]), *by_split]
            labels.add_row(*cells)
        out.print(labels)
    for floor in report["floors"]:
        out.print(
            f"floor of {floor['label']}: AUROC {floor['auroc']:.3f} from histogram and thumbnail alone, cross-validated over "
            f"{floor['patients']} patients ({floor['images']} images)",
            soft_wrap=True,
        )
    if not report["findings"]:
        out.print("no findings", style="green")
        return
    findings = Table("finding", "meaning", title=f"{len(report['findings'])} findings")
    for finding in report["findings"]:
        findings.add_row(finding["finding"], finding["meaning"])
    out.print(findings)
    for example in list_examples(report):
        out.print(example, soft_wrap=True)


def describe_content(content: ContentSummary, images: int) -> str:
    """How many images are those that were stored."""
    damaged, unhashed = len(content["damaged"]), content["without_hash"]
    decoded = f"; {unhashed} JPEGs of an earlier version have no hash and were decoded only" if unhashed else ""
    return f"{images - damaged} of {images} images are as they were stored{decoded}"


def report_lines(report: DoctorReport) -> list[tuple[str, str]]:
    """Name and text of each line of the report, without labels and findings."""
    store, layout, values, patients = report["store"], report["layout"], report["intensity"], report["patients"]
    shape = " x ".join(map(str, store["shape"])) if store["shape"] else "sizes vary"
    near = report["near"]
    files = f" in {store['files']} files" if store["files"] > 1 else ""
    unknown = patients["images_without_patient"]
    alone = f"; {unknown} images without a patient count as one patient each" if unknown else ""
    several = f"{patients['with_several']} with several images, maximum {patients['most']}, median {patients['median']:g}"
    splits = ", ".join(f"{k}: {v['images']} images of {v['patients']} patients" for k, v in report["splits"]["splits"].items())
    near_pairs = f"{near['pairs']} pairs within {near['radius']} bits" if near["looked"] else "not searched (--near searches)"
    return [
        ("images", f"{store['images']}{files}, {shape} {store['dtype']}, {store['modality']}, data set {store['dataset']!r}"),
        ("geometry", ", ".join(f"{k} {v}" for k, v in store["geometry"].items() if v is not None)),
        ("content", describe_content(report["content"], store["images"])),
        ("unit", f"(value - {store['unit']['offset']:g}) / {store['unit']['scale']:g}; {store['unit'].get('meaning', '')}"),
        ("values", f"{sparkline(values['histogram'])}  0 to 1 (bar heights: square roots), {values['images']} images"),
        ("", f"mean {values['mean']:.3f}, std {values['std']:.3f}; black {values['black']:.1%}, white {values['white']:.1%}"),
        *([("bits", ", ".join(f"{group['images']} images use {group['bits']}" for group in report["depths"]))] if report["depths"] else []),
        ("patients", f"{patients['patients']}; {several}{alone}"),
        ("splits", splits or "none stored"),
        ("duplicates", f"{report['exact']['groups']} groups of identical images ({report['exact']['images']} images); near: {near_pairs}"),
        ("layout", f"{layout['codec']}, {layout['bytes'] / 1e6:.1f} MB, {layout['bytes_per_image'] / 1e3:.1f} kB per image"),
        (
            "read rate",
            f"{layout['images_per_s']:.0f} images/s, {layout['mb_per_s']:.0f} MB/s ({layout['read']} single images in random order)",
        ),
    ]


def sparkline(shares: list[float]) -> str:
    """A histogram as text. Heights are square roots of the fractions, so that a black background does not flatten the rest."""
    roots = [share**0.5 for share in shares]
    top = max(roots) or 1.0
    return "".join(SPARKLINE_BLOCKS[round(root / top * (len(SPARKLINE_BLOCKS) - 1))] if root else " " for root in roots)


def format_distribution(values: Distribution) -> str:
    """The distribution of a label as text."""
    if not values:
        return "none known"
    if "prevalence" in values:
        return f"{values['positive']} positive ({values['prevalence']:.1%})"
    if "mean" in values and "min" in values:
        return f"{values['min']:g} to {values['max']:g}, mean {values['mean']:g}"
    classes = sorted(values.items(), key=lambda item: -item[1])
    more = f", {len(classes) - MAX_VALUES_PRINTED} more" if len(classes) > MAX_VALUES_PRINTED else ""
    return ", ".join(f"{name} {n}" for name, n in classes[:MAX_VALUES_PRINTED]) + more


def list_examples(report: DoctorReport) -> list[str]:
    """The first keys of each finding; `--json` lists more."""
    lines = [f"constant: {key}" for key in report["constant"][:MAX_GROUPS_PRINTED]]
    lines += [f"identical: {' = '.join(keys)}" for keys in report["exact"]["keys"][:MAX_GROUPS_PRINTED]]
    lines += [f"near: {a} ~ {b} ({bits} bits)" for a, b, bits in report["near"]["nearest"][:MAX_GROUPS_PRINTED]]
    who = report["splits"]["who"]
    more = ", ..." if len(who) > MAX_GROUPS_PRINTED else ""
    return lines + ([f"patients in several splits: {', '.join(who[:MAX_GROUPS_PRINTED])}{more}"] if who else [])
