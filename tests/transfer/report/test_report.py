"""The report: correct numbers and verdicts, no network access, escaped names, no patient named."""

import json
from html.parser import HTMLParser

import numpy as np
import pytest
from sklearn.metrics import confusion_matrix
from typer.testing import CliRunner

from encoders.runtime.errors import InputError
from encoders.store.store import Store
from encoders.store.write import save_store
from transfer.cli.main import app
from transfer.records import record
from transfer.records.ledger import append_to_ledger, ledger_path
from transfer.records.looks import gather_looks
from transfer.records.record import Identity, Meta, Record
from transfer.records.test_usage import count_split_usage
from transfer.report import confusion, images, latex, tables, verdict_text
from transfer.report.page import render_page
from transfer.stats import Difference
from transfer.stats.verdict import decide_verdict as stats_verdict
from transfer.tables import render, result_csv, wandb_report
from transfer.tables.build import build_sections
from transfer.tables.comparisons import judge_sections
from transfer.tables.rows import Comparison, Row, Section

EVIL = "<script>alert(1)</script>"
PATIENTS = 50  # two images each


def made(encoder="mine", role="encoder", skill=1.0, kind="binary", classes=("sick",), seed=0, **more):
    """A record whose scores depend on the label with strength `skill`; patients are called Doe-0, Doe-1, ..."""
    identity = {k: more.pop(k) for k in list(more) if k in Identity.model_fields}
    fields = {"task": "lungs", "store": "s", "labels": "l", "split": "h", "partition": "h", "card": "c", "protocol_hash": "p" * 16}
    fields |= {"encoder": encoder, "encoder_sha256": f"sha-{encoder}", "protocol": "linear"} | identity
    draw, truth = np.random.default_rng([seed, len(encoder)]), np.random.default_rng(7)
    arrays = {}
    for part in ("val", "test"):
        who = np.repeat(np.arange(PATIENTS), 2)
        if kind == "multiclass":
            y = np.eye(len(classes))[truth.integers(0, len(classes), PATIENTS)][who]
        else:
            y = truth.integers(0, 2, (PATIENTS, len(classes)))[who].astype(float)
        odds = np.exp(skill * (2 * y - 1) + draw.normal(0, 1, y.shape))
        s = odds / odds.sum(1, keepdims=True) if kind == "multiclass" else odds / (1 + odds)
        names = np.array([f"Doe-{part}-{i}" for i in who])
        arrays |= {f"{part}_key": np.array([f"{n}/img{j}" for j, n in enumerate(names)]), f"{part}_patient": names}
        arrays |= {f"{part}_y": y.astype(np.float32), f"{part}_scores": s}
    counts = {part: {"patients": PATIENTS, "images": 2 * PATIENTS} for part in ("train", "val", "test")} | more.pop("counts", {})
    meta = Meta(identity=Identity(**fields), kind=kind, classes=list(classes), role=role, arch="net", counts=counts, **more)
    return Record(meta, arrays)


def pair(**more):
    return [made(skill=2.0, **more), made("imagenet_net", "imagenet", 0.1, **more)]


def drawn(records, **more):
    return render_page(records, build_sections(records), count_split_usage(records, gather_looks(records)), **more)


class Tags(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.found, self.text = [], ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text += f" {data}"


def test_whatever_a_name_contains_is_shown_as_text_and_nothing_is_fetched():
    quoted = '"><img src=http://evil.example/x onerror=alert(1)>'
    records = pair(task=EVIL, kind="multilabel", classes=(EVIL, quoted), warnings=[EVIL], versions={EVIL: quoted})
    tags = Tags(drawn(records, refused={EVIL: quoted}))
    assert EVIL in tags.text
    assert quoted in tags.text
    assert not {tag for tag, _ in tags.found} & {"script", "img", "link", "iframe", "object"}
    for _, attributes in tags.found:
        assert "src" not in attributes
        assert attributes.get("href", "#").startswith("#")
        assert not any(name.startswith("on") for name in attributes)
    assert "default-src 'none'" in next(a["content"] for t, a in tags.found if t == "meta" and "http-equiv" in a)


def test_no_patient_and_no_key_is_on_the_page_whatever_the_records_say():
    leak = "3 patients between train and test, e.g. Doe-train-1; Doe-train-2"
    failed = Record(made(protocol="knn").meta.model_copy(update={"status": "failed", "error": "cannot read Doe-train-9"}), {})
    text = drawn([*pair(leakage=[leak], warnings=["odd: Doe-test-3/img6 and Doe-val-2"], selection={"worst": "Doe-val-1"}), failed])
    assert "Doe" not in text
    assert "LEAKAGE ALLOWED" in text
    assert "3 patients between train and test" in text
    assert "failed" in text


def test_the_verdict_is_that_of_the_table_in_words_with_its_interval_and_patients():
    records = pair()
    text = Tags(drawn(records)).text
    d = next(row.difference for row in build_sections(records)[0].rows if row.role == "encoder")
    assert d.verdict == "better"
    assert f"mine is better than imagenet_net by {d.value:.3f} AUROC (95 % interval {d.low:.3f} to {d.high:.3f})." in text
    assert "50 test patients, 100 images" in text
    assert "Verdicts are about the tested checkpoints" in text
    assert text.index("Verdict") < text.index("Task lungs")


@pytest.mark.parametrize(
    ("low", "high", "word", "told"),
    [
        (-0.07, -0.01, "worse", "a is worse than b by 0.040 AUROC (95 % interval 0.010 to 0.070)."),
        (-0.09, 0.01, "not distinguishable", "a and b are not distinguishable: difference -0.040 AUROC (95 % interval -0.090 to +0.010)."),
        (
            float("nan"),
            float("nan"),
            "insufficient patients",
            "a and b differ by -0.040 AUROC; there are insufficient patients for an interval",
        ),
        (-0.0800, -0.0002, "worse", "a is worse than b by 0.040 AUROC (95 % interval 0.0002 to 0.080)."),
    ],
)
def test_a_verdict_never_says_more_than_its_interval(low, high, word, told):
    p = 0.03 if low == low else float("nan")
    found = judged("a", "b", Difference(-0.04, low, high, p, word, "m"))
    assert verdict_text.describe_comparison(found, {"a": "a", "b": "b"}).startswith(told)


def judged(encoder, reference, difference, relation="same architecture"):
    """A row without records, compared with its strongest baseline."""
    row = Row(encoder, "encoder", "linear", 1.0, {}, [], comparisons=[Comparison(reference, relation, difference, primary=True)])
    return verdict_text.JudgedRow(Section("t", "l", "p", "linear", "h"), row, difference, relation)


def set_difference(row, difference):
    row.comparisons = [Comparison(row.reference, "same architecture", difference, primary=True)]


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        (
            {"withheld": "insufficient draws"},
            "a and b differ by +0.040 AUROC (95 % interval +0.010 to +0.070); the labeled patients were drawn",
        ),
        (
            {"withheld": "does not transfer"},
            "a and b differ by +0.040 AUROC (95 % interval +0.010 to +0.070); the better of the two is not above",
        ),
        ({"holm_p": 0.2, "family": 9}, "a and b are not distinguishable: difference +0.040 AUROC (95 % interval +0.010 to +0.070)."),
        ({"holm_p": 0.2, "margin": 0.1, "holm_equivalence_p": 0.01}, "a is equivalent to b at a margin of 0.1: difference +0.040 AUROC"),
        ({"holm_p": 0.2, "margin": 0.1, "holm_inferiority_p": 0.01}, "a is not inferior to b at a margin of 0.1: difference +0.040 AUROC"),
    ],
)
def test_a_withheld_or_corrected_verdict_is_said_in_words(changes, told):
    difference = Difference(0.04, 0.01, 0.07, 0.03, "better", "m", **changes)
    assert verdict_text.describe_comparison(judged("a", "b", difference), {"a": "a", "b": "b"}).startswith(told)


def test_too_few_patients_are_no_finding_and_missing_imagenet_weights_are_told():
    records = pair()
    parts = build_sections(records)
    nan = float("nan")
    set_difference(parts[0].rows[0], Difference(0.04, nan, nan, nan, stats_verdict(nan, nan), "m"))
    found = verdict_text.list_comparisons(parts)
    shown = render.shorten_names(parts)
    assert 'mine</b> cannot <b class="none">be compared with</b> <b>imagenet_net</b>: insufficient patients.' in str(
        verdict_text.render_headlines(found, shown)[0]
    )
    assert render.format_rows(parts, shown, {})[0][-1] == "insufficient patients to compare with imagenet_net"
    few = Difference(0.04, 0.01, 0.07, 0.01, "better", "m", withheld="insufficient patients")
    assert render.format_verdict(few, "imagenet_net") == "insufficient patients to compare with imagenet_net", "though there is an interval"
    set_difference(parts[0].rows[0], few)
    assert "there are insufficient patients for a verdict" in verdict_text.describe_comparison(
        verdict_text.list_comparisons(parts)[0], shown
    )
    told = "no ImageNet weights of net were benchmarked"
    assert told in Tags(drawn([made(), made("random_net", "random", 0.1)])).text
    assert told not in Tags(drawn(records)).text


def test_many_comparisons_are_corrected_and_the_reader_is_told_when_one_falls():
    """Six protocols of one table: the smallest p-value, .02, becomes .12, so no verdict says `better` anywhere."""
    records = [r for i in range(6) for r in pair(protocol=f"protocol{i}", protocol_hash=f"h{i}")]
    parts = build_sections(records)
    for part, p in zip(parts, (0.02, 0.3, 0.4, 0.5, 0.6, 0.7), strict=True):
        set_difference(part.rows[0], Difference(0.1, 0.01, 0.19, p, "better", "m"))
    judge_sections(parts)
    found = verdict_text.list_comparisons(parts)
    assert found[0].difference.holm_p == pytest.approx(0.12)
    certainty = verdict_text.describe_certainty(found[0])
    assert "Holm-corrected for the 6 comparisons of this table: p = 0.120; significant alone, not after Holm correction" in certainty
    shown = render.shorten_names(parts)
    said = " ".join(verdict_text.render_headlines(found, shown))
    assert "not distinguishable from" in said
    assert "6 of these differences are significant alone but not after Holm correction for the 6 comparisons of the table." in said
    assert all(line[-1] == "not distinguishable from imagenet_net" for line in render.format_rows(parts, shown, {}) if line[0] == "mine")
    csv = result_csv.results_to_csv(parts, {}, {})
    assert "better" not in csv
    assert "better" not in render.results_to_markdown(parts, {}, {})
    assert "better" not in latex.render_latex(parts)
    assert "better" not in result_csv.comparisons_to_csv(parts)
    flat = wandb_report.wandb_summary(parts, "mine")
    assert {value for name, value in flat.items() if name.endswith("verdict")} == {"not distinguishable"}
    assert {value for name, value in flat.items() if name.endswith("/versus")} == {"imagenet_net"}


def test_the_table_shows_the_rows_of_compare():
    parts = build_sections(pair())
    shown = render.shorten_names(parts)
    cells = " ".join(Tags(tables.results_table(parts, shown)).text.split())
    for line in render.format_rows(parts, shown, {}):
        for cell in filter(None, line):
            assert cell.removesuffix(" than imagenet_net") in cells  # named once, below the table


def test_confusion_is_that_of_scikit_learn():
    one = made(kind="multiclass", classes=("a", "b", "c"))
    y, s, _ = one.part("test")
    row = build_sections([one])[0].rows[0]
    np.testing.assert_array_equal(confusion.confusion_matrices(row)[0], confusion_matrix(y.argmax(1), s.argmax(1)))


def test_several_fractions_make_a_label_efficiency_chart_and_one_makes_none():
    counts = {"train": {"patients": 10, "images": 20}}
    few = [made(fraction=0.2, draw=d, seed=d, counts=counts) for d in (0, 1)]
    assert "label efficiency" in drawn([*few, made()])
    assert "label efficiency" not in drawn([made()])


@pytest.mark.parametrize(("kind", "classes"), [("multiclass", ("a", "b", "c")), ("multilabel", ("a", "b"))])
def test_several_classes_have_a_table_of_their_own(kind, classes):
    text = Tags(drawn(pair(kind=kind, classes=classes))).text
    assert "AUROC of each class" in text
    assert ("threshold sensitivity [95 %] specificity [95 %]" in " ".join(text.split())) == (kind == "multilabel")


def test_a_table_never_mixes_protocol_hashes_and_the_page_says_that_there_are_two():
    markup = drawn([*pair(), *pair(protocol_hash="q" * 16)])
    assert markup.count("Task lungs</h2>") == 2
    text = Tags(markup).text
    assert "linear" in text
    assert "linear was run with 2 different settings or versions (hashes pppppppp, qqqqqqqq)" in text


def test_the_ledger_tells_of_looks_by_encoders_that_the_page_does_not_show():
    assert "at least 2 times (from records, no ledger found)" in " ".join(Tags(drawn(pair())).text.split())
    for i in range(3):
        append_to_ledger({"split": "h", "encoder": f"e{i}", "encoder_sha256": f"sha-e{i}", "protocol": "knn", "time": 1e9}, ledger_path())
    text = " ".join(Tags(drawn(pair())).text.split())
    assert "at least 5 times 5 5 2 0 2001-09-09 2001-09-09 3 encoders: e0, e1, e2" in text
    assert "every test image was scored at least 5 times, by 5 encoders and 2 protocols" in text


def call(*words):
    done = CliRunner().invoke(app, ["report", *map(str, words)])
    if isinstance(done.exception, InputError):
        raise done.exception
    return done


def test_an_edited_record_is_refused_visibly_and_its_numbers_are_not_used(tmp_path):
    paths = [record.write_record(r) for r in pair()]
    content = json.loads(paths[1].read_text())
    paths[1].write_text(json.dumps({**content, "role": "random"}))
    done = call("--out", tmp_path / "r.html")
    text = Tags((tmp_path / "r.html").read_text()).text
    assert done.exit_code == 1
    assert "1 file was refused" in text
    assert "was changed after it was written" in text
    assert str(paths[1].parent) not in text
    assert "imagenet_net-linear" in text.split("Verdict")[0]
    assert "imagenet_net" not in text.split("Verdict")[1]
    with pytest.raises(InputError, match="no record to report on"):
        call(paths[1], "--out", tmp_path / "s.html")


def test_a_report_from_the_working_folder_with_its_ledger_and_latex(tmp_path):
    for r in pair(task="lungs_50%"):
        record.write_record(r)
        append_to_ledger({**r.identity.model_dump(), "time": 1.7e9}, ledger_path())
    done = call("--out", tmp_path / "r.html", "--latex", tmp_path / "t.tex")
    assert done.exit_code == 0, done.output
    text = (tmp_path / "r.html").read_text()
    assert "at least 2 times" in text
    assert "2023-11-14" in text
    assert "no patient images" in text
    assert "<img" not in text
    tex = (tmp_path / "t.tex").read_text()
    assert r"lungs\_50\%" in tex
    assert r"\toprule" in tex
    assert r"imagenet\_net & linear" in tex
    with pytest.raises(InputError, match="did you mean imagenet_net"):
        call("--baseline", "imagenet_nett", "--out", tmp_path / "r.html")


def test_latex_special_signs_are_escaped():
    assert latex.escape_latex("a_b & 5 % \\x{}") == r"a\_b \& 5 \% \textbackslash{}x\{\}"


def test_pictures_come_only_with_the_store_of_the_task_and_worst_first(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 255, (2 * PATIENTS, 16, 16, 1), dtype=np.uint8)
    save_store(tmp_path / "s.h5", pixels, patient=made().arrays["test_patient"].tolist(), labels={"sick": np.zeros(2 * PATIENTS)})
    store = Store.open(tmp_path / "s.h5")
    records = [Record(r.meta, {**r.arrays, "test_key": store.column("key")}) for r in pair(store=store.fingerprint)]
    text = drawn(records, store=store)
    found = [a for t, a in Tags(text).found if t == "img"]
    assert found
    assert all(a["src"].startswith("data:image/png;base64,") for a in found)
    assert "Doe-" not in text  # "Doe" alone may occur in the base64 of a picture
    assert "do not share it" in text
    sure = [float(a["alt"].rpartition(" ")[2]) for a in found[: images.MAX_THUMBNAILS]]
    assert sure == sorted(sure)
    for r in pair():
        record.write_record(r)
    with pytest.raises(InputError, match="no record was made from"):
        call("--store", tmp_path / "s.h5", "--out", tmp_path / "r.html")
