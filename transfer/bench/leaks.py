"""Leaks of one task: between the parts of its split, and between its test part and the pretraining of an encoder."""

from collections.abc import Callable, Sequence

from encoders.runtime.errors import InputError
from encoders.runtime.escape import format_csv
from encoders.runtime.local_notes import show_path, write_private
from encoders.runtime.paths import records_dir
from encoders.similarity.turned_search import read_signs
from encoders.store.patient_ids import SameNames, list_same_names
from transfer.bench.baselines import EncoderEntry, load_manifests
from transfer.leakage import check, image_copies, patients, pictures, seen_labels
from transfer.leakage.pretraining_images import PretrainingImages
from transfer.tasks.load import LoadedTask
from transfer.tasks.people import check_same_people


def gather_split_leaks(loaded: LoadedTask, near_duplicates: bool) -> list[check.Leak]:
    """Images and patients that the parts of the split share."""
    by_split = loaded.task.split.patients_by_split
    leaks = check.find_part_leaks(loaded.split, loaded.key, loaded.patient, loaded.sha256, by_split)
    leaks += [] if by_split else patients.find_similar_patients(loaded.split, loaded.patient, loaded.store.names_patient())
    if near_duplicates and loaded.store.has_column("phash"):
        leaks += image_copies.find_near_duplicates(loaded.split, read_task_images(loaded))
    return leaks


def read_task_images(loaded: LoadedTask) -> image_copies.TaskImages:
    """The images of a task whose store has perceptual hashes."""
    return image_copies.TaskImages(loaded.key, loaded.sha256, read_signs(loaded.store), loaded.store)


def gather_pretraining_leaks(loaded: LoadedTask, entry: EncoderEntry, near_duplicates: bool) -> tuple[list[check.Leak], list[str]]:
    """Images that the test part shares with the pretraining of an encoder, or of those that it was initialised from, and which copies could
    not be found."""
    rows, uncompared = loaded.split.rows("test"), []
    leaks: list[check.Leak] = []
    for name, card, manifest in load_manifests(entry.name):
        leaks += check.find_manifest_leaks(name, manifest, rows, loaded.key, loaded.sha256)
        leaks += seen_labels.find_label_leaks(name, manifest, rows, loaded.key, loaded.sha256)
        if near_duplicates and loaded.store.has_column("phash"):
            pretraining = PretrainingImages(name, manifest, card, loaded.store)
            leaks += image_copies.find_manifest_near_duplicates(name, manifest, rows, read_task_images(loaded), pretraining)
            uncompared += pretraining.list_uncompared()
    return leaks, uncompared


def describe_label_use(loaded: LoadedTask, entry: EncoderEntry) -> list[str]:
    """Sentences on the labels that an encoder, or one that it comes from, was trained with."""
    labels = [label for component in loaded.components for label in (*component.task.labels, *component.task.classes)]
    return [
        line
        for name, _, manifest in load_manifests(entry.name)
        for line in seen_labels.describe_seen_labels(name, manifest, labels, loaded.split, loaded.sha256)
    ]


def gather_pretraining_patients(
    loaded: LoadedTask, entry: EncoderEntry, same_people: SameNames
) -> tuple[list[check.Leak], list[patients.PatientComparison]]:
    """Patients that the test part shares with the pretraining of an encoder, or of the encoders that it was initialised from, and how many
    could be compared with each of them."""
    rows, store = loaded.split.rows("test"), loaded.store
    same = [*loaded.task.same_people, *same_people]
    tested = patients.PatientColumns(store.column("patient")[rows], store.datasets[rows], store.names_patient()[rows], same)
    found = [patients.find_pretraining_patients(name, manifest, tested) for name, _, manifest in load_manifests(entry.name)]
    return [leak for leaks, _ in found for leak in leaks], [comparison for _, comparison in found]


def check_declared_people(tasks: Sequence[LoadedTask], entries: Sequence[EncoderEntry], same_people: SameNames) -> None:
    """Raises InputError for a data set of `--same-people` that neither the tasks nor the manifests name, for pseudonyms, and for two data
    sets of one task, whose split would have to change."""
    manifests = [images.manifest for entry in entries if same_people for images in load_manifests(entry.name)]
    known = {str(name) for manifest in manifests for name in manifest.get("datasets", ())}
    known |= {name for loaded in tasks for name in loaded.store.datasets.tolist()}
    if any("datasets" not in manifest for manifest in manifests):  # of an earlier version: any name may be one of its data sets
        known |= {name for group in same_people for name in group}
    for loaded in tasks if same_people else ():
        check_same_people(loaded.store, same_people, known)
        before, now = (
            {tuple(list_same_names(name, same)) for name in loaded.store.datasets.tolist()}
            for same in (loaded.task.same_people, [*loaded.task.same_people, *same_people])
        )
        if len(now) < len(before):
            raise InputError(
                f"--same-people joins data sets that task {loaded.task.name!r} keeps apart, which changes its split; add the task again: "
                f"`transfer tasks add {loaded.task.name} ... --same-people NAME,NAME --replace`"
            )


def save_leaks(loaded: LoadedTask, leaks: Sequence[check.Leak], name: str, log: Callable[[str], None]) -> str:
    """Lists the images, pairs and patients of leaks in a file that only this user may read, and draws the pairs whose pixels are available
    locally, before the benchmark stops with an error. Reports both files; returns the path of the list, "" without a leak."""
    folder = records_dir() / loaded.task.name
    if not leaks:
        return ""
    path = pictures.draw_leak_pairs(loaded.store, leaks, folder / f"{name}.png")
    if path is not None:
        log(f"{loaded.task.name}: pictures of the leaked or suspected pairs are in {show_path(path)}")
    rows = ([leak.kind, leak.between, "confirmed" if leak.confirmed else "suspected", shown] for leak in leaks for shown in leak.examples)
    table = format_csv([["kind", "between", "state", "images or patients"], *rows])
    listed = show_path(write_private(folder / f"{name}.csv", table))
    log(f"{loaded.task.name}: {sum(leak.count for leak in leaks):,} leaked or suspected images and patients are listed in {listed}")
    return listed
