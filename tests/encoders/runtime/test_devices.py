"""`--device` means one thing for every command; a GPU that torch cannot use is never replaced silently."""

import stat
import sys

import pytest
import torch

from encoders.runtime import devices, gpu_faults
from encoders.runtime.errors import InputError

VARIABLES = [
    "CUDA_VISIBLE_DEVICES", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "SLURM_JOB_ID", "SLURM_STEP_ID", "SLURM_LOCALID",
    *gpu_faults.GPU_LISTS, *gpu_faults.GPU_COUNTS,
]  # fmt: skip


@pytest.fixture
def machine(monkeypatch, tmp_path):
    """A machine without GPU, driver, nvidia-smi or scheduler, to be changed."""
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(gpu_faults, "DRIVER_FOLDER", tmp_path / "driver")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    return Machine(monkeypatch, tmp_path)


class Machine:
    def __init__(self, patch, folder):
        self.patch, self.folder = patch, folder

    def load_driver(self, version, name="Kernel Module"):
        (self.folder / "driver").mkdir()
        text = f"NVRM version: NVIDIA UNIX x86_64 {name}  {version}  Sat Aug 19 01:15:15 UTC 2023\nGCC version:  gcc version 12.3.0\n"
        (self.folder / "driver" / "version").write_text(text)

    def install_nvidia_smi(self, answer, status=0):
        command = self.folder / "nvidia-smi"
        command.write_text(f"#!{sys.executable}\nprint({answer!r}); raise SystemExit({status})\n")
        command.chmod(command.stat().st_mode | stat.S_IXUSR)

    def build_torch(self, cuda, version="2.14.1+cu130", hip=None):
        self.patch.setattr(torch, "__version__", version)
        self.patch.setattr(torch.version, "cuda", cuda)
        self.patch.setattr(torch.version, "hip", hip)

    def add_gpus(self, *names, kernel_error=None):
        """GPUs that torch sees. Kernels cannot run on them: what the product does with them is recorded."""
        self.current = []
        real = torch.zeros

        def zeros(*size, device=None, **more):
            if kernel_error and device is not None and str(device).startswith("cuda"):
                raise RuntimeError(kernel_error)
            return real(*size, **more)

        self.patch.setattr(torch.cuda, "is_available", lambda: True)
        self.patch.setattr(torch.cuda, "device_count", lambda: len(names))
        self.patch.setattr(torch.cuda, "get_device_name", lambda i: names[i])
        self.patch.setattr(torch.cuda, "set_device", self.current.append)
        self.patch.setattr(torch, "zeros", zeros)


def refusal(name="auto", **more):
    with pytest.raises(InputError) as refused:
        devices.resolve_device(name, **more)
    return str(refused.value)


@pytest.mark.parametrize("name", [None, "auto", "cpu"])
def test_without_a_gpu_the_device_is_the_cpu(machine, name):
    assert devices.resolve_device(name) == "cpu"


@pytest.mark.parametrize("name", ["cud", "gpu", "cuda:", "cuda:-1", "cuda:x", "CUDA", "cpu:0x", "mps:0", "xpu"])
def test_what_is_no_device_is_an_error_that_names_those_that_exist(machine, name):
    assert f"--device {name!r} is not a device; use cuda" in refusal(name)
    assert refusal(name).endswith("Here: cpu")
    machine.add_gpus("NVIDIA A", "NVIDIA B")
    assert refusal(name).endswith("Here: cuda:0 (NVIDIA A), cuda:1 (NVIDIA B), cpu")


@pytest.mark.parametrize(("name", "want"), [("auto", 0), (None, 0), ("cuda", 0), ("cuda:1", 1)])
def test_a_gpu_has_a_number_and_is_the_current_device(machine, name, want):
    machine.add_gpus("A", "B")
    assert devices.resolve_device(name) == f"cuda:{want}"
    assert machine.current == [want]


def test_cpu_is_the_cpu_also_beside_a_gpu(machine):
    machine.add_gpus("A")
    machine.load_driver("580.65.06")
    assert devices.resolve_device("cpu") == "cpu"
    assert machine.current == []


@pytest.mark.parametrize(("launcher", "rank"), [("torchrun", 0), ("torchrun", 3), ("srun", 2)])
def test_each_process_of_a_node_has_its_own_gpu(machine, monkeypatch, launcher, rank):
    variables = {
        "torchrun": {"LOCAL_RANK": rank, "LOCAL_WORLD_SIZE": 4},
        "srun": {"SLURM_LOCALID": rank, "SLURM_STEP_ID": 0, "MASTER_ADDR": "n1", "SLURM_STEP_TASKS_PER_NODE": "4(x2)"},
    }
    for name, value in variables[launcher].items():
        monkeypatch.setenv(name, str(value))
    machine.add_gpus("A", "B", "C", "D")
    assert devices.resolve_device("cuda") == f"cuda:{rank}"
    assert devices.resolve_device(f"cuda:{rank}") == f"cuda:{rank}"  # what a command passes on is not refused
    assert "names one GPU for the 4 processes on this node; with --device cuda each has its own" in refusal(f"cuda:{(rank + 1) % 4}")
    machine.add_gpus("A", "B", "C")
    assert "the 4 processes on this node would share 3 GPUs; start one process per GPU" in refusal("cuda:0" if rank in (0, 3) else "cuda")
    machine.add_gpus("A")  # the cluster shows each process only its own
    assert devices.resolve_device("cuda") == "cuda:0"


def test_a_gpu_that_does_not_exist_is_an_error(machine):
    machine.add_gpus("A", "B")
    assert refusal("cuda:2") == "--device cuda:2: there is no such GPU. Here: cuda:0 (A), cuda:1 (B), cpu"
    assert machine.current == []


@pytest.mark.parametrize("name", ["cuda", "cuda:0"])
def test_cuda_without_a_gpu_is_an_error(machine, name):
    assert f"--device {name}: this machine has no GPU" in refusal(name)
    assert "--device cpu" in refusal(name)


GIVEN = [
    ("CUDA_VISIBLE_DEVICES", "0"), ("CUDA_VISIBLE_DEVICES", "GPU-8932f937"), ("SLURM_JOB_GPUS", "0"), ("SLURM_STEP_GPUS", "2,3"),
    ("SLURM_GPUS_ON_NODE", "1"), ("SLURM_GPUS", "4"), ("SLURM_GPUS_PER_NODE", "a100:2"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "value"), GIVEN)
@pytest.mark.parametrize("in_slurm", [False, True])
def test_a_job_that_was_given_a_gpu_is_not_run_on_the_cpu(machine, monkeypatch, name, value, in_slurm):
    monkeypatch.setenv(name, value)
    if in_slurm:
        monkeypatch.setenv("SLURM_JOB_ID", "7")
    message = refusal()
    assert f"a GPU is here ({name}={value}), but" in message
    assert message.endswith("to run on the CPU on purpose, pass --device cpu")
    assert devices.resolve_device("cpu") == "cpu"
    assert devices.resolve_device("auto", fall_back=True) == "cpu"


HIDDEN = [("CUDA_VISIBLE_DEVICES", ""), ("CUDA_VISIBLE_DEVICES", "-1"), ("CUDA_VISIBLE_DEVICES", "NoDevFiles"), ("SLURM_JOB_ID", "7")]


@pytest.mark.parametrize(("name", "value"), [*HIDDEN, ("SLURM_GPUS_ON_NODE", "0")])
def test_a_job_without_gpus_runs_on_the_cpu_of_a_node_that_has_some(machine, monkeypatch, name, value):
    machine.load_driver("580.65.06")
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    monkeypatch.setenv(name, value)
    assert devices.resolve_device() == "cpu"


def test_outside_of_jobs_a_driver_or_nvidia_smi_tells_of_a_gpu(machine):
    machine.install_nvidia_smi("No devices were found", status=6)
    assert devices.resolve_device() == "cpu"
    machine.install_nvidia_smi("535.104.05, NVIDIA A100")
    assert "a GPU is here (nvidia-smi: 535.104.05, NVIDIA A100), but" in refusal()
    machine.install_nvidia_smi("Failed to initialize NVML: Driver/library version mismatch", status=18)
    assert "a GPU is here (nvidia-smi: Failed to initialize NVML" in refusal()
    machine.load_driver("535.104.05")
    assert "driver exists), but" in refusal()


@pytest.mark.parametrize(
    ("driver", "cuda", "needed", "index"),
    [
        ("535.104.05", "13.0", "580.65.06", "cu126"),
        ("575.57.08", "13.0", "580.65.06", "cu126"),
        ("470.256.02", "13.0", "580.65.06", "cu118, which has torch up to 2.7"),
        ("515.65", "12.8", "525.60.13", "cu118"),
        ("450.80.02", "12.6", "525.60.13", "cu118"),
    ],
)
@pytest.mark.parametrize("module", ["Kernel Module", "Open Kernel Module for x86_64"])
def test_an_old_driver_is_named_with_the_one_that_the_wheel_needs_and_the_wheel_that_it_runs(machine, driver, cuda, needed, index, module):
    machine.load_driver(driver, module)
    machine.build_torch(cuda)
    for message in (refusal(), refusal("cuda")):
        assert f"its driver is {driver}, and this torch (2.14.1+cu130, built for CUDA {cuda}) needs driver {needed} or newer" in message
        assert f"PyTorch's package index {index}" in message
        assert "http" not in message


def test_a_driver_that_no_wheel_supports_must_be_updated(machine):
    machine.load_driver("390.157")
    machine.build_torch("12.6")
    assert "No wheel of torch runs with driver 390.157: update it to 525.60.13 or newer" in refusal()


@pytest.mark.parametrize(("driver", "index"), [("580.65.06", "cu130"), ("590.10", "cu130"), ("560.35.03", "cu126"), ("470.82.01", "cu118")])
def test_a_torch_without_cuda_is_named_with_the_wheel_to_take(machine, driver, index):
    machine.load_driver(driver)
    machine.build_torch(None, "2.14.1+cpu")
    assert "this torch (2.14.1+cpu) is built without CUDA" in refusal()
    assert f"package index {index}" in refusal()


def test_without_a_known_driver_the_advice_lists_what_each_wheel_needs(machine, monkeypatch):
    monkeypatch.setenv("SLURM_JOB_GPUS", "0")
    machine.build_torch(None, "2.14.1+cpu")
    for text in ("cu130 needs driver 580.65.06", "cu126 needs driver 525.60.13", "cu118 needs driver 450.80.02"):
        assert text in refusal()


def test_a_good_driver_leaves_the_reason_to_torch(machine):
    machine.load_driver("580.65.06")
    machine.build_torch("13.0")
    machine.patch.setattr(gpu_faults, "_ask_torch", lambda: "CUDA-capable device(s) is/are busy or unavailable")
    assert "torch 2.14.1+cu130 says: CUDA-capable device(s) is/are busy or unavailable" in refusal()


def test_a_gpu_too_old_or_too_new_for_the_wheel_is_an_error_before_the_run(machine):
    machine.add_gpus("Tesla V100", kernel_error="CUDA error: no kernel image is available for execution on the device\nmore")
    machine.patch.setattr(torch.cuda, "get_device_capability", lambda i: (7, 0))
    machine.patch.setattr(torch.cuda, "get_arch_list", lambda: ["sm_75", "sm_80"])
    for name in ("auto", "cuda"):
        assert "cuda:0 (Tesla V100) cannot be used: this torch" in refusal(name)
        assert "no code for its architecture sm_70 (it has sm_75, sm_80)" in refusal(name)
        assert "cu126" in refusal(name)
    assert devices.resolve_device("auto", fall_back=True) == "cpu"


def test_mps_is_taken_only_by_name(machine, monkeypatch):
    assert "torch finds no GPU of Apple here" in refusal("mps")
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert devices.resolve_device("mps") == "mps"
    assert devices.resolve_device("auto") == "cpu"
    assert refusal("cuda:7x").endswith("Here: mps, cpu")


def test_the_reason_of_this_machines_torch_is_one_line(machine):
    assert "\n" not in gpu_faults._ask_torch()
