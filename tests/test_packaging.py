"""What travels in the wheel: the packages, and with them the recipes, the cards and the job templates."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("wheel")
    # without isolation: hatchling is already here, and no network is needed
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--quiet", "-w", str(out), str(ROOT)]
    subprocess.run(command, check=True, capture_output=True)
    return next(out.glob("*.whl"))


@pytest.mark.slow
def test_recipes_cards_and_templates_travel_in_the_wheel(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    for folder, inside, pattern in [
        ("configs/pretrain", "pretrain/configs", "*.yaml"),
        ("slurm", "encoders/slurm", "*.sbatch"),
        ("encoders/zoo/cards", "encoders/zoo/cards", "*.yaml"),
        ("transfer/report/published/data", "transfer/report/published/data", "*.yaml"),
        ("transfer/report/checklist/data", "transfer/report/checklist/data", "*.yaml"),
    ]:
        here = {f"{inside}/{p.name}" for p in (ROOT / folder).glob(pattern)}
        assert here
        assert here <= names


@pytest.mark.slow
def test_an_installed_copy_finds_recipes_by_name_from_any_folder(wheel, tmp_path):
    site = tmp_path / "site"
    with zipfile.ZipFile(wheel) as packed:
        packed.extractall(site)
    code = (
        "import encoders, pathlib; from pretrain.recipe.recipes import find_recipe; from encoders.runtime.slurm import read_template;"
        "print(pathlib.Path(encoders.__file__).parent.parent); print(find_recipe('cxr_moco')); print(read_template('pretrain.sbatch')[:11])"
    )
    env = {"PYTHONPATH": str(site), "PATH": "/usr/bin:/bin"}
    # -S would lose the libraries: the extracted copy comes first on the path instead
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=env, capture_output=True, text=True, check=True)
    where, recipe, first = done.stdout.splitlines()
    assert where == str(site)
    assert recipe.startswith(str(site))
    assert first == "#!/bin/bash"
