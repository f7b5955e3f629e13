"""What users type wrongly every day, and the message that says what to write."""

import pytest
from typer.testing import CliRunner

import encoders.cli.main
import pretrain.cli.main
import transfer.cli.main
from encoders.runtime.errors import InputError
from encoders.runtime.files import write_json
from encoders.runtime.paths import runs_dir
from encoders.zoo.names import split_names
from encoders.zoo.zoo import find_encoder

APPS = {"encoders": encoders.cli.main.app, "pretrain": pretrain.cli.main.app, "transfer": transfer.cli.main.app}
STORE = "data.store=x.h5"


def message(line):
    command, *words = line.split()
    done = CliRunner().invoke(APPS[command], words)
    assert done.exit_code in (1, 2), done.output
    return " ".join(f"{done.output} {done.exception}".split())


@pytest.mark.parametrize(
    ("line", "answer"),
    [
        # settings written as options
        (f"pretrain run cxr_moco_tiny --batch 64 {STORE}", "No such option: --batch. Settings are written without dashes: batch=64"),
        (f"pretrain run cxr_moco_tiny --batch=64 {STORE}", "Settings are written without dashes: batch=64"),
        (f"pretrain run cxr_moco_tiny --batch-size 64 {STORE}", "Settings are written without dashes: batch=64"),
        (f"pretrain plan cxr_moco_tiny --epochs 5 {STORE}", "Settings are written without dashes: epochs=5"),
        (f"pretrain submit cxr_moco_tiny --seed 1 {STORE}", "Settings are written without dashes: seed=1"),
        (f"pretrain run cxr_moco_tiny --lr 0.1 {STORE}", "Settings are written without dashes: optim.lr=0.1"),
        (f"pretrain run cxr_moco_tiny --learning-rate 0.1 {STORE}", "optim.lr=0.1"),
        ("pretrain run cxr_moco_tiny --data x.h5", "Settings are written without dashes: data.store=x.h5"),
        ("pretrain run cxr_moco_tiny --optim.lr 0.1", "Settings are written without dashes: optim.lr=0.1"),
        (f"pretrain preview cxr_moco_tiny --num-workers 4 {STORE}", "data.workers=4"),
        ("transfer bench --encoder x --epochs 5", "Settings are written without dashes: finetune.epochs=5"),
        ("transfer bench --encoder x --shots 5", "Settings are written without dashes: fewshot.shots=5"),
        ("pretrain run cxr_moco_tiny batch 64", "'batch' is not a setting; write key=value, e.g. batch=64"),
        ("pretrain run cxr_moco_tiny batch:64", "'batch:64' is not a setting; did you mean batch=64?"),
        ("pretrain run cxr_moco_tiny batchh=64", "did you mean batch or"),
        # devices
        (f"pretrain run cxr_moco_tiny --gpu 0 {STORE}", "The device is chosen by --device: write --device cuda:0"),
        (f"pretrain run cxr_moco_tiny --cpu {STORE}", "write --device cpu"),
        ("transfer bench --encoder x --cuda", "write --device cuda"),
        ("transfer bench --encoder x --gpus 1", "write --device cuda:1"),
        # repeated options
        ("pretrain run cxr_moco_tiny --name a --name b", "--name takes one value, and was given 2 times: --name a and --name b"),
        ("transfer bench --encoder x --seed 1 --seed=2", "--seed takes one value, and was given 2 times: --seed 1 and --seed 2"),
        # sweeps
        (f"pretrain run cxr_moco_tiny --sweep seed {STORE}", "write key=a,b, e.g. --sweep seed=0,1,2"),
        (f"pretrain submit cxr_moco_tiny --sweep seed=0,1 --sweep seed=2 {STORE}", "write its values in one: --sweep seed=0,1,2"),
        (f"pretrain plan cxr_moco_tiny --sweep seed=0,1 seed=2 {STORE}", "seed is swept, and also set by 'seed=2'; remove one of them"),
        (f"pretrain submit cxr_moco_tiny --at-once 2 {STORE}", "add --sweep KEY=A,B, or remove it"),
        ("transfer submit --after nothing --task x", "no job, run or sweep called 'nothing'"),
        # names
        ("pretrain run cxr_mooco data.store=x.h5", "did you mean cxr_moco"),
        ("transfer bench --encoder imagenet_resnet81 --baseline none", "did you mean resnet18"),
        ("transfer bench --encoder x --protocol knn --protocol linaer", "did you mean linear?"),
        ("transfer bench --encoder x --protocol knn,linaer", "did you mean linear?"),
        ("transfer bench --encoders x", "--encoder"),
        ("transfer bench", "name one with --encoder"),
        ("transfer tasks show pneumonai", "no task called 'pneumonai'"),
        ("pretrain statsu", "No such command 'statsu'"),
        ("pretrain resume none", "no run called 'none'"),
        ("encoders show none", "no encoder called 'none'"),
        ("encoders ingest folder", "Missing argument 'src'"),
        ("encoders ingest png in out.h5", "No such command 'png'; commands of `root ingest`: folder, phantom, dicom"),
        ("pretrain train cxr_moco_tiny", "No such command 'train'; commands of `root`: run, plan"),
        ("pretrain run mine.yaml data.store=x.h5", "there is no recipe file mine.yaml; `pretrain recipes` lists"),
        ("pretrain run configs/cxr_moco.yaml data.store=x.h5", "there is no recipe file configs/cxr_moco.yaml; write cxr_moco"),
        ("pretrain run cxr_moco_tiny method=simclr", "method is a group of settings; write method.name=simclr"),
        ("pretrain run cxr_moco_tiny augment=histology", "augment is a group of settings; write augment.preset=histology"),
        ("pretrain run cxr_moco_tiny optim=sgd", "optim is a group of settings; write optim.kind=sgd"),
        ("pretrain run cxr_moco_tiny batch=abc", "batch: Input should be a valid integer"),
        ("pretrain run cxr_moco_tiny method.name=simclrr", "no method called 'simclrr'; did you mean simclr?"),
        ("pretrain preview cxr_moco_tiny data.store=x.h5 --out x.jpg", "use a name like x.png"),
        ("transfer bench --encoder x steps=4", "'steps=4' names no protocol; write PROTOCOL.SETTING=VALUE, e.g. knn.steps=4"),
        ("transfer bench --encoder x liner.steps=4", "did you mean linear?"),
        ("transfer bench --encoder x linear.stepz=4", "did you mean steps?"),
        ("transfer bench --encoder x --shift gama", "did you mean gamma?"),
        ("transfer tasks recipes chexprt", "did you mean chexpert"),
        ("encoders ingest hdf5 a.h5 o.h5 --images x --labels a.csv", "a table is passed with --table a.csv"),
        # words of other tools
        ("transfer bench --encoder x --batch-size 4", "Write --batch 4"),
        ("transfer bench --model x", "Write --encoder x"),
        ("transfer bench --encoder x --num-workers 3", "Write --workers 3"),
        ("transfer bench --encoder x --output x.csv", "Write --csv x.csv"),
        ("transfer report --output x.html", "Write --out x.html"),
        ("encoders embed a b --output c.h5", "Write out without --output, in its place: name store out"),
        ("encoders ingest folder a o.h5 --csv a.csv", "Write --labels a.csv"),
        ("encoders ingest hdf5 a.h5 o.h5 --annotations a.csv", "Write --table a.csv"),
        (f"pretrain submit cxr_moco_tiny {STORE} --mem 3G", "Write --memory 3G"),
        # options of siblings
        (f"pretrain run cxr_moco_tiny {STORE} --partition gpu", "--partition is an option of `root submit`: leave it out here"),
        (f"pretrain run cxr_moco_tiny {STORE} --gpus 4", "write --device cuda:4; `root submit` has --gpus"),
        (f"pretrain submit cxr_moco_tiny {STORE} --device cpu", "--gpus 0 for a job on CPUs"),
        (f"pretrain submit cxr_moco_tiny {STORE} --out a", "ISOGRAFT_HOME names another folder"),
        (f"pretrain plan cxr_moco_tiny {STORE} --out a --continue", "--continue has no effect here: no run is written"),
        (f"pretrain preview cxr_moco_tiny {STORE} --name a --device cpu", "note: --name has no effect here: no run is written"),
        ("transfer compare --seed 3", "--seed is an option of `root bench` and `root train` and others: leave it out here"),
        ("transfer compare --encoder a --protocol knn --device cpu", "--device has no effect here: records are read"),
        ("transfer submit --encoder x --partion gpu", "no option called '--partion'; did you mean --partition"),
        ("transfer submit --draws 5 linear.steps=9", "no encoder was given; name one with --encoder"),
        ("transfer tasks add t x.h5 --label-column a --only b=1", "--only is about a table of labels; name it with --labels"),
    ],
)
def test_a_mistake_is_answered_with_what_to_write(line, answer):
    assert answer in message(line)


def test_names_are_not_listed_by_the_dozen():
    with pytest.raises(InputError) as error:
        find_encoder("zzz")
    assert "more" in str(error.value)
    assert len(str(error.value)) < 500


@pytest.mark.parametrize(
    ("texts", "names"),
    [
        (["a,b"], ["a", "b"]),
        (["a", "b, c"], ["a", "b", "c"]),
        (["random_x:size=32,channels=1"], ["random_x:size=32,channels=1"]),
        (["random_x:size=32,channels=1,b:seed=2,size=8,c"], ["random_x:size=32,channels=1", "b:seed=2,size=8", "c"]),
        (["random_x:3,channels=1,a+b:model.depth=2"], ["random_x:3,channels=1", "a+b:model.depth=2"]),
        (["a~statistics=b,c"], ["a~statistics=b", "c"]),
        (["runs/a@5,zoo/card.yaml"], ["runs/a@5", "zoo/card.yaml"]),
        (["none"], ["none"]),
        ([], []),
    ],
)
def test_encoders_are_separated_by_commas_that_do_not_belong_to_a_name(texts, names):
    assert split_names(texts) == names


def test_a_path_with_a_comma_is_one_name(tmp_path):
    card = tmp_path / "a,b" / "card.yaml"
    card.parent.mkdir()
    card.touch()
    assert split_names([str(card)]) == [str(card)]


def test_lists_may_be_repeated_or_have_commas(monkeypatch):
    given = []

    def to_request(options):
        given.append(options)
        raise InputError("end")

    monkeypatch.setattr("transfer.bench.options.BenchOptions.to_request", to_request)
    for line in ("--protocol knn,linear --task a", "--protocol knn --task=a --protocol linear"):
        assert "end" in message(f"transfer bench --encoder x {line}")
    assert [(options.protocol, options.task) for options in given] == [("knn,linear", "a")] * 2


@pytest.mark.parametrize(
    ("info", "files", "answer"),
    [
        ({"step": 60, "steps": 100, "status": "running"}, ["checkpoints/step-00000040.pt", "checkpoints/step-00000060.pt"],
         "its run is at step 60 of 100 (running): wait, or use runs/mine@60"),
        ({"step": 0, "steps": 100, "status": "running"}, [], "step 0 of 100 (running): wait, or it has no checkpoint yet"),
        (None, ["jobs.txt"], "its run was submitted as job 12 and has not started; `pretrain status mine` shows its state"),
        ({"step": 9, "steps": 9, "status": "finished"}, ["encoder/card.yaml"], "use runs/mine, or `pretrain export mine`"),
    ],
)  # fmt: skip
def test_an_unfinished_run_that_is_named_as_an_encoder_is_described(info, files, answer):
    folder = runs_dir() / "mine"
    for file in files:
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / file).write_text("12 2026-01-01T00:00:00\n")
    if info:
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / "run.json", info)
    with pytest.raises(InputError, match="no encoder called 'mine' yet") as error:
        find_encoder("mine")
    assert answer in str(error.value)
