"""What texts and settings lose before they leave this machine, and what they keep."""

import os
import socket
import stat

import pytest

from encoders.runtime import local_notes, redact

HIDDEN = {
    "/data/Muster_Erika/x.h5": "(file).h5",
    "Muster_Erika_19610507.dcm": "(file).dcm",
    "cannot read '/data/Erika Muster/scan 1.png': no": "cannot read '(file).png': no",
    "/x/Erika.Muster.gz and /x/a.nii.gz": "(file).gz and (file).nii.gz",
    "C:\\Users\\erika\\a.csv": "(file).csv",
    "~/erika/scans": "(folder)",
    "in //server/share/erika: no": "in (folder): no",
    "of 1961-05-07, 19610507, 1961/05/07 and 07.05.1961": "of -, -, - and -",
    "uid 1.2.840.113619.2.55": "uid -",
    "on radnode7.example (radnode7) by drx": "on - (-) by -",
    "file:///home/drx/a.h5": "(file).h5",
}
KEPT = [
    "knn.k is [1000] but the train split has 36 rows",
    "0.912 [0.871, 0.944], version 1.2.3 of 20 patients",
    "put model.safetensors of https://huggingface.co/timm/x into the zoo",
    "hf:timm/resnet18",
    "<b>no</b>",
    "lr 1e-4, steps 20240, seed 19610",
    "random_resnet18:size=64,mean=0.5",
]


@pytest.fixture(autouse=True)
def _machine(monkeypatch):
    monkeypatch.setattr(socket, "gethostname", lambda: "radnode7.example")
    monkeypatch.setenv("LOGNAME", "drx")
    monkeypatch.setenv("USER", "drx")


@pytest.mark.parametrize(("text", "left"), HIDDEN.items())
def test_a_text_loses_files_folders_dates_identifiers_hosts_and_users(text, left):
    assert redact.redact_text(text) == left


@pytest.mark.parametrize("text", KEPT)
def test_a_text_keeps_numbers_settings_and_public_addresses(text):
    assert redact.redact_text(text) == text


def test_names_of_runs_and_encoders_and_our_own_files_stay(monkeypatch, tmp_path):
    monkeypatch.setenv("ISOGRAFT_HOME", str(tmp_path / "Erika Muster"))
    home = tmp_path / "Erika Muster"
    texts = [f"{home}/zoo/mine/model.safetensors", "runs/mine@400", f"{home}/runs/mine", f"see {home}."]
    assert [redact.redact_text(text) for text in texts] == ["model.safetensors", "mine@400", "mine", "see .."]


def test_names_of_images_and_patients_are_replaced_wherever_they_stand():
    names = {"MRN1", "MRN11", "Muster, Erika", "a/b c.png"}
    text = "images 'MRN1' and MRN11. (Muster, Erika): a/b c.png; MRN12 stays"
    assert redact.redact_names(text, names, "-") == "images '-' and - (-): -; MRN12 stays"


def test_the_log_of_a_job_gets_no_names_and_says_where_they_are(monkeypatch, tmp_path):
    monkeypatch.setenv("ISOGRAFT_HOME", str(tmp_path))
    message = "cannot read /data/Muster_Erika.png"
    assert local_notes.describe_for_log(message) == message  # a terminal
    assert local_notes.show_key("MRN1") == "MRN1"
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    assert local_notes.describe_for_log("batch is 0") == "batch is 0"  # nothing to hide
    shown = local_notes.describe_for_log(message)
    assert shown == "cannot read (file).png (in full, not to be passed on: .isograft/local-errors.log)"
    key = local_notes.show_key("MRN1")
    assert key.startswith("image ")
    assert key == local_notes.show_key("MRN1") != local_notes.show_key("MRN2")
    notes = tmp_path / ".isograft" / "local-errors.log"
    assert message in notes.read_text()
    assert f"{key} is MRN1" in notes.read_text()
    assert stat.S_IMODE(os.stat(notes).st_mode) == 0o600
