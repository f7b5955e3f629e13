"""README.md of an exported encoder: a model card of the Hugging Face hub, with its metadata as YAML header.

Source of the header: huggingface.co/docs/hub/model-cards (license, library_name, tags, pipeline_tag, model-index).
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import yaml

from encoders.runtime.escape import escape_markdown
from encoders.runtime.json_types import Json
from encoders.runtime.redact import redact_private
from encoders.zoo.card import Card, list_trained_labels
from encoders.zoo.evaluation import EvaluationResult
from encoders.zoo.head_card import describe_head
from encoders.zoo.licences import LicenceHolder, governing_licence, hub_licence, is_unknown_licence, licence_warnings
from encoders.zoo.recombine import has_batchnorm
from encoders.zoo.timm_config import list_code_arguments, write_loading_code

RECIPE_FIELDS = ("method", "steps", "batch", "epochs", "size", "channels", "init", "optim", "augment")  # of a card's config, in this order
RESIZE_WORDS = {
    "crop": "shorter side to {target}, center crop of {size}",
    "pad": "longer side to {size}, black borders",
    "squash": "both sides to {size}",
}


class ModelCardFacts(NamedTuple):
    """What a model card is made of."""

    card: Card
    ancestors: Sequence[LicenceHolder]  # encoders that the weights come from, nearest first
    lineage: str
    results: Sequence[EvaluationResult]
    hub_base: str | None  # hub name of the weights that it was initialised from
    source_check: str  # whether it was compared with its source


def write_model_card(facts: ModelCardFacts) -> str:
    """The text of README.md, header and body."""
    header = yaml.safe_dump(model_card_header(facts), sort_keys=False, allow_unicode=True, width=120)
    return f"---\n{header}---\n\n" + "\n".join(_body(facts)) + "\n"


def model_card_header(facts: ModelCardFacts) -> dict[str, Json]:
    """The metadata of the hub."""
    card = facts.card
    governing = governing_licence(card.licence, facts.ancestors)
    listed = hub_licence(governing)
    header: dict[str, Json] = {"license": listed or ("unknown" if is_unknown_licence(governing) else "other")}
    if header["license"] == "other":
        header["license_name"] = (
            "-".join("".join(c if c.isalnum() or c in ".-" else " " for c in governing.lower()).split())[:64] or "other"
        )
    header |= {"library_name": "timm", "pipeline_tag": "image-feature-extraction"}
    method = ["self-supervised-learning"] if card.config and not list_trained_labels(card) else []
    tags = ["isograft", "timm", "image-feature-extraction", *method, card.modality, card.method, "medical" if card.modality else None]
    header["tags"] = list(dict.fromkeys(tag for tag in tags if tag))
    if facts.hub_base:
        header["base_model"] = facts.hub_base
    if facts.results:
        header["model-index"] = [{"name": card.name, "results": [_index_entry(result) for result in facts.results]}]
    return header


def _index_entry(result: EvaluationResult) -> dict[str, Json]:
    protocol = f"{result.protocol}{', ' + result.settings if result.settings else ''}"
    metrics: list[Json] = [
        {
            "type": metric.kind,
            "name": f"{metric.title}, {protocol} [95 % CI {metric.low:.3f} to {metric.high:.3f}]",
            "value": round(metric.value, 6),
            "args": {"protocol": protocol, "ci_low": round(metric.low, 6), "ci_high": round(metric.high, 6), "ci_level": 0.95},
        }
        for metric in result.metrics
    ]
    return {
        "task": {"type": "image-classification", "name": result.task},
        "dataset": {"type": result.task, "name": result.task, "split": "test"},
        "metrics": metrics,
    }


def _body(facts: ModelCardFacts) -> list[str]:
    card = facts.card
    lines = [
        f"# {escape_markdown(card.name)}",
        "",
        f"An encoder of images: {escape_markdown(card.arch)}, {card.dim} features. Written by isograft; its card is `card.yaml`.",
        "",
    ]
    lines += ["## Licence", "", *_licence_lines(facts), "", "## Use", "", *_use_lines(card), "", "## Input", "", *_input_lines(card), ""]
    lines += ["## Data and recipe", "", *_training_lines(facts), "", "## Evaluation", "", *_evaluation_lines(facts.results), ""]
    return [*lines, "## Checks", "", f"- {escape_markdown(facts.source_check)}", *_check_lines(card)]


def _licence_lines(facts: ModelCardFacts) -> list[str]:
    own = facts.card.licence
    lines = [f"Licence of the weights: {escape_markdown(governing_licence(own, facts.ancestors))}."]
    if facts.ancestors:
        lines.append("They come from " + ", ".join(escape_markdown(f"{a.name} ({a.licence})") for a in facts.ancestors) + ".")
    return lines + [f"\n**{escape_markdown(line[0].upper() + line[1:])}.**" for line in licence_warnings(own, facts.ancestors)]


def _use_lines(card: Card) -> list[str]:
    lines = ["```python", write_loading_code(card, "local-dir:FOLDER"), "```", ""]
    lines.append("`hf-hub:OWNER/NAME` in place of `local-dir:FOLDER` loads it from the hub.")
    if extra := list_code_arguments(card):
        lines.append(f"`config.json` cannot state {', '.join(extra)}: without the code above the features are others.")
        if card.stages is not None:
            lines.append(f"Its features are those of the stages {'/'.join(map(str, card.stages))}; the code above gives the last ones.")
    else:
        lines.append('`transformers.AutoModel.from_pretrained("FOLDER")` gives the same features as `pooler_output`.')
        if has_batchnorm(card):
            lines.append("`TimmBackbone` of transformers 5 resets the BatchNorm statistics after loading; use timm's `features_only=True`.")
    lines.append('`isograft`: `encoders.load("FOLDER").encode(images)`.')
    if card.head is not None:
        lines.append(
            f"Its head (`head.safetensors`): {escape_markdown(describe_head(card.head))}. Logits are `features @ weight.T + bias`; they "
            "are divided by the temperature before they become probabilities."
        )
    return lines


def _input_lines(card: Card) -> list[str]:
    p = card.preprocess
    mean, std = p.unit_mean_std
    resize = RESIZE_WORDS[p.resize].format(size=p.size, target=int(p.size / p.crop_pct))
    lines = [
        f"- {p.channels} channel{'s' if p.channels > 1 else ''}, {p.size} x {p.size} pixels: {resize}, {p.interpolation}, antialiased",
        f"- pixels on [0, 1], then mean {_format_numbers(mean)} and std {_format_numbers(std)}",
    ]
    if p.resize == "pad":
        lines.append("- timm fills the border with the mean, isograft with black: images that are not square differ at the border")
    return lines


def _training_lines(facts: ModelCardFacts) -> list[str]:
    card = facts.card
    lines = [f"- lineage: {escape_markdown(facts.lineage)}"]
    if card.method:
        lines.append(f"- method: {escape_markdown(card.method)}" + (f", {card.steps} steps" if card.steps is not None else ""))
    if card.modality:
        lines.append(f"- modality: {escape_markdown(card.modality)}")
    lines += [f"- trained with the label {escape_markdown(text)}" for text in list_trained_labels(card)]
    corpus: Mapping[str, object] = redact_private(card.corpus or {})
    lines += [f"- data, {key}: {_inline(value)}" for key, value in corpus.items() if key != "fingerprints"]
    if not card.corpus:
        lines.append("- data: the card does not say which images it was trained on")
    recipe: Mapping[str, object] = redact_private(card.config or {})
    lines += [f"- recipe, {key}: {_inline(recipe[key])}" for key in RECIPE_FIELDS if recipe.get(key) is not None]
    return lines


def _evaluation_lines(results: Sequence[EvaluationResult]) -> list[str]:
    if not results:
        return ["No results: `transfer bench` and `transfer table` have not been run with these weights."]
    lines = ["95 % intervals over patients.", "", "| task | protocol | test images (patients) | metric | value [95 %] | verdict |"]
    lines.append("|---|---|---|---|---|---|")
    for r in results:
        protocol = f"{r.protocol}{', ' + r.settings if r.settings else ''}"
        for i, m in enumerate(r.metrics):
            verdict = f"{r.verdict} (versus {r.versus})" if r.verdict and r.versus and i == 0 else ""
            cells = (
                r.task,
                protocol,
                f"{r.test_images} ({r.test_patients})",
                m.title,
                f"{m.value:.3f} [{m.low:.3f}, {m.high:.3f}]",
                verdict,
            )
            lines.append("| " + " | ".join(escape_markdown(cell) for cell in cells) + " |")
    return lines


def _check_lines(card: Card) -> list[str]:
    versions = ", ".join(f"{library} {version}" for library, version in card.versions.items())
    return [f"- sha256 of model.safetensors: `{card.sha256}`", *([f"- written with {versions}"] if versions else [])]


def _format_numbers(values: Sequence[float]) -> str:
    return ", ".join(f"{value:g}" for value in values)


def _inline(value: object) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{_inline(k)} {_inline(v)}" for k, v in value.items() if v is not None)
    return ", ".join(map(_inline, value)) if isinstance(value, list | tuple) else escape_markdown(str(value))
