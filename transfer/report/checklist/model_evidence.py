"""Evidence about the models: input, network, weights, training, selection and software."""

import json
from collections.abc import Iterator, Mapping

from encoders.zoo.card import Card, list_trained_labels
from transfer.protocols import describe_protocol
from transfer.records.record import Record
from transfer.report.checklist.facts import Evidence, StudyFacts

CARD_MISSING = "the card is not available in this working folder, or differs from the benchmarked one"


def list_encoders(facts: StudyFacts) -> Iterator[tuple[str, Record, Card | None]]:
    """Encoder, one of its records, and its card if it is available."""
    for encoder, record in facts.by_encoder.items():
        yield encoder, record, facts.cards[encoder]


def card_gaps(facts: StudyFacts, what: str) -> tuple[str, ...]:
    """One gap per encoder without a card."""
    return tuple(f"{what} of {encoder}: {CARD_MISSING}" for encoder, _, card in list_encoders(facts) if card is None)


def preprocessing(facts: StudyFacts) -> Evidence:
    """From the stored file to the input of the network."""
    lines, gaps = [], list(card_gaps(facts, "preprocessing"))
    for task, source in facts.sources.items():
        if isinstance(source, str):
            gaps.append(f"stored geometry and intensity of {task} ({source})")
            continue
        for part in source.store.parts[:1]:
            geometry, unit = part.attrs.get("geometry") or {}, part.attrs.get("unit") or {}
            lines.append(
                f"{task}, store: {_compact(geometry)}; intensity: {_compact(unit)}; {part.codec}, {source.store.channels} channels"
            )
    for encoder, _, card in list_encoders(facts):
        if card is not None:
            lines.append(f"{encoder}, input: {_compact(card.preprocess.model_dump(mode='json'))}")
    return Evidence(tuple(lines), tuple(gaps))


def architecture(facts: StudyFacts) -> Evidence:
    """Network, its arguments, width of the features, and the heads of the protocols."""
    lines = []
    for encoder, record, card in list_encoders(facts):
        words = [f"timm network {record.meta.arch}", f"input {record.meta.size} px"]
        if card is not None:
            words += [f"arguments {_compact(card.model_args)}"] if card.model_args else []
            words.append(f"{card.dim} features")
        lines.append(f"{encoder}: {', '.join(words)}")
    for protocol in dict.fromkeys(r.identity.protocol for r in [*facts.records, *facts.external]):
        lines.append(f"{protocol}: {describe_protocol(protocol)} on the encoder; its settings are listed under training")
    return Evidence(tuple(lines), card_gaps(facts, "arguments and width"))


def initialization(facts: StudyFacts) -> Evidence:
    """Where the weights come from, with hashes."""
    lines, gaps = [], list(card_gaps(facts, "origin of the weights"))
    for encoder, record, card in list_encoders(facts):
        words = [f"role {record.meta.role}", f"weights {record.identity.encoder_sha256[:12]}"]
        if card is not None:
            words += [f"method {card.method}"] if card.method else []
            words += [f"initialised from {card.lineage['init']}"] if card.lineage.get("init") else []
            words += [f"weights of {name}" for name in (card.lineage.get("weights"), card.source) if name and name != card.method]
            corpus = card.corpus or {}
            words += [f"pretraining data {corpus['dataset']} ({str(corpus.get('fingerprint', ''))[:12]})"] if corpus.get("dataset") else []
            if not (card.lineage.get("init") or card.lineage.get("weights") or card.source or record.meta.role == "random"):
                gaps.append(f"origin of the weights of {encoder}: its card does not state it")
        lines.append(f"{encoder}: {', '.join(map(str, words))}")
    return Evidence(tuple(lines), tuple(gaps))


def training(facts: StudyFacts) -> Evidence:
    """Settings of the pretraining, where this program did it, and of the protocols on the labels."""
    lines, gaps = [], []
    for encoder, record, card in list_encoders(facts):
        if record.meta.role != "encoder":
            continue
        if card is None:
            gaps.append(f"pretraining of {encoder}: {CARD_MISSING}")
        elif card.config is None:
            gaps.append(f"pretraining of {encoder}: its card has no settings, as it was not pretrained with this program")
        else:
            kept: dict[str, object] = {
                name: card.config[name] for name in ("method", "augment", "optim", "batch", "warmup_steps", "seed") if name in card.config
            }
            lines.append(f"{encoder}, pretraining: {card.method}, {card.steps} steps; {_compact(_without_empty(kept))}")
            lines += [f"{encoder}, pretraining with the label {text}" for text in list_trained_labels(card)]
    settings = {(r.identity.protocol, r.identity.protocol_hash): r.meta.protocol_config for r in [*facts.records, *facts.external]}
    lines += [f"{protocol} {digest[:8]}: {_compact(_without_empty(cfg))}" for (protocol, digest), cfg in settings.items()]
    return Evidence(tuple(lines), tuple(gaps))


def model_selection(facts: StudyFacts) -> Evidence:
    """What was chosen, and on which patients."""
    chosen: dict[str, set[str]] = {}
    for r in facts.records:
        simple = {k: v for k, v in r.meta.selection.items() if isinstance(v, int | float | str | bool)}
        chosen.setdefault(r.identity.protocol, set()).update(simple)
    lines = [f"{protocol}: chosen on validation patients: {', '.join(sorted(names)) or 'nothing'}" for protocol, names in chosen.items()]
    lines.append("The test part was opened after the selection was frozen; every use of it is in the ledger, which the report counts")
    return Evidence(tuple(lines))


def ensembling(facts: StudyFacts) -> Evidence:
    """That every result is of one fitted model."""
    return Evidence(("none: every record scores one fitted model. Rows over folds, draws or seeds average metrics, not predictions",))


def software(facts: StudyFacts) -> Evidence:
    """Versions of the libraries, and the devices."""
    seen: dict[str, set[str]] = {}
    for r in [*facts.records, *facts.external]:
        for name, value in [*r.meta.versions.items(), ("device", r.meta.device)]:
            seen.setdefault(name, set()).add(value)
    return Evidence(tuple(f"{name} {', '.join(sorted(values))}" for name, values in sorted(seen.items())))


def output_form(facts: StudyFacts) -> Evidence:
    """What the model returns, and how a decision is made from it."""
    lines = []
    for task, record in facts.by_task.items():
        s = record.arrays["test_scores"]
        kind = "probabilities" if s.min() >= -1e-6 and s.max() <= 1 + 1e-6 else "scores that are no probabilities"
        decision = (
            "the class with the highest score"
            if record.meta.kind == "multiclass"
            else "a threshold per label, chosen on validation patients"
        )
        lines.append(f"{task}: {record.meta.kind}, {kind}; decision: {decision}")
    return Evidence(tuple(lines))


def prediction_rule(facts: StudyFacts) -> Evidence:
    """How test predictions were computed."""
    hashes = dict.fromkeys(f"{r.identity.protocol} {r.identity.protocol_hash[:8]}" for r in facts.records)
    return Evidence((f"scored once per record by the frozen fit, without updates on test patients; protocols {', '.join(hashes)}",))


def class_imbalance(facts: StudyFacts) -> Evidence | None:
    """Settings of the protocols that concern class weights or balanced sampling."""
    found = {
        f"{r.identity.protocol}: {name} = {value}"
        for r in facts.records
        for name, value in r.meta.protocol_config.items()
        if any(word in name for word in ("balance", "class_weight", "pos_weight", "oversample"))
    }
    return Evidence(tuple(sorted(found))) if found else None


def weights_availability(facts: StudyFacts) -> Evidence:
    """Hashes, licences and origins of the weights."""
    lines = []
    for encoder, record, card in list_encoders(facts):
        origin = f", licence {card.licence}, source {card.source or 'not stated'}" if card is not None else ""
        lines.append(f"{encoder}: weights {record.identity.encoder_sha256[:12]}{origin}")
    return Evidence(tuple(lines), card_gaps(facts, "licence"))


def program_version(facts: StudyFacts) -> Evidence:
    """The version of this program that wrote the records."""
    versions = sorted({r.meta.versions["isograft"] for r in facts.records if "isograft" in r.meta.versions})
    return Evidence((f"scored with isograft {', '.join(versions) or 'of an unknown version'} (Apache-2.0)",))


def protocol_identity(facts: StudyFacts) -> Evidence:
    """Hashes that identify split, labels and protocols: no registration."""
    lines = [f"{task}: split {r.identity.partition[:12]}, labels {r.identity.labels[:12]}" for task, r in facts.by_task.items()]
    return Evidence((*lines, *prediction_rule(facts).lines), related=True)


def _compact(value: Mapping[str, object]) -> str:
    return json.dumps(value, sort_keys=True, separators=(", ", ": "), default=str).strip("{}").replace('"', "")


def _without_empty(value: Mapping[str, object]) -> dict[str, object]:
    """The settings without nulls, zeros and empty values, also inside sections: what is switched off is not listed."""
    inner = {k: _without_empty(v) if isinstance(v, Mapping) else v for k, v in value.items()}
    return {k: v for k, v in inner.items() if v not in (None, 0, 0.0, False, "", [], {})}
