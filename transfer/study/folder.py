"""The folder of a study: that of a submitted benchmark, `benches/NAME/`, and the study itself in `study.yaml`.

So `transfer jobs`, `compare --bench`, `report --bench` and `submit --rerun` serve studies too.
"""

from collections.abc import Sequence

from encoders.runtime.config import to_yaml
from encoders.runtime.files import atomic_write
from encoders.runtime.slurm_site import Site
from transfer.bench.bench_folder import BenchFolder
from transfer.bench.slurm_array import BenchCell, Per, refuse_busy, write_bench_folder
from transfer.study.config import Study


def write_study_folder(folder: BenchFolder, study: Study, cells: Sequence[BenchCell], site: Site, per: Per = "task") -> list[int]:
    """Writes the folder, and returns the numbers of its array tasks.

    A study may grow or shrink: cells that it had before are read from their records. Raises InputError while its jobs are in the queue."""
    refuse_busy(folder)
    _forget_other_cells(folder, cells)
    numbers = write_bench_folder(folder, cells, site, (), per)
    with atomic_write(folder.study_file) as part:
        part.write_text(to_yaml(study))
    return numbers


def _forget_other_cells(folder: BenchFolder, cells: Sequence[BenchCell]) -> None:
    """Forgets the states of an existing folder with other cells. Their records stay, so that nothing is computed again."""
    lines = [cell.arguments for cell in cells]
    if folder.commands_file.is_file() and folder.commands() != lines:
        for path in folder.status_dir.glob("*"):
            path.unlink()
        folder.commands_file.unlink()
