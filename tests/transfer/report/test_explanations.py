"""Heat maps in a report: only on demand, marked, of the report's tasks, and with nothing that names an image."""

import json

import pytest
from PIL import Image

from encoders.runtime.errors import InputError
from tests.transfer.cli.test_cli import NET, call
from tests.transfer.report.test_report import drawn, pair
from tests.transfer.trained.cases import toy_task
from transfer.explain.saved import FORMAT, JSON_NAME, read_explanations
from transfer.report.explanations import MOST_EXPLAINED, open_explanations


def saved(folder, task="lungs", images=2, name=None):
    """A folder as `transfer explain` writes it."""
    folder.mkdir()
    entries = []
    for number in range(1, images + 1):
        file = f"{number:05d}-gradcam.png"
        Image.new("RGB", (8, 8), (number, 0, 0)).save(folder / file)
        facts = {"number": number, "label": "sick", "probability": 0.9, "decision": "decided sick"}
        entries.append(facts | {"pictures": {"gradcam": name or file}})
    facts = {"format": FORMAT, "model": "net", "task": task, "mark": "image of a patient: do not share", "methods": ["gradcam"]}
    (folder / JSON_NAME).write_text(json.dumps(facts | {"images": entries}))
    return folder


def test_maps_are_on_the_page_only_if_their_folder_is_named(tmp_path):
    records = pair()
    folder = saved(tmp_path / "maps", images=MOST_EXPLAINED + 3)
    without = drawn(records)
    assert "What the network used" not in without
    assert "The page contains no patient images." in without
    page = drawn(records, explanations=open_explanations([folder], records))
    assert "The page contains images of patients: do not share it." in page
    assert "What the network used" in page
    assert page.count("data:image/png;base64,") == MOST_EXPLAINED
    assert f"net: the first {MOST_EXPLAINED} of {MOST_EXPLAINED + 3} pictures" in page
    assert str(tmp_path) not in page


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        ({"task": "hearts"}, "is of task hearts, and the report is of lungs; leave it out"),
        ({"name": "../secret.png"}, "lacks the picture ../secret.png"),
        ({"name": "other.png"}, r"lacks the picture other\.png"),
    ],
)
def test_folders_of_other_tasks_and_pictures_elsewhere_are_refused(tmp_path, more, reason):
    Image.new("RGB", (8, 8)).save(tmp_path / "secret.png")
    with pytest.raises(InputError, match=reason):
        open_explanations([saved(tmp_path / "maps", **more)], pair())


def test_a_folder_that_is_no_explanation_or_is_damaged_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"holds no explanations\.json; name a folder that `transfer explain --out` wrote"):
        read_explanations(tmp_path)
    folder = saved(tmp_path / "maps")
    (folder / JSON_NAME).write_text('{"format": "isograft-explanations", "images": [{}]}')
    with pytest.raises(InputError, match=r"explanations\.json cannot be read"):
        read_explanations(folder)


def test_the_command_puts_maps_on_the_page_of_their_task(tmp_path):
    toy_task(tmp_path)
    call(
        "bench", "--encoder", NET, "--task", "sick", "--protocol", "knn", "--baseline", "none", "--no-floor", "--no-near", "--device", "cpu"
    )
    maps = saved(tmp_path / "maps", task="sick", images=1)
    done = call("report", "--out", tmp_path / "r.html", "--explanations", maps)
    assert "with images of patients" in " ".join(done.output.split())
    page = (tmp_path / "r.html").read_text()
    assert "What the network used" in page
    assert "do not share it" in page
    done = call("report", "--out", tmp_path / "r.html")
    assert "without images of patients" in " ".join(done.output.split())
    assert "What the network used" not in (tmp_path / "r.html").read_text()
