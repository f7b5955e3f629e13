"""Weights & Biases as a mirror of the record. Its mode is decided before it starts; it never prompts, never hangs, and never stops a run.

Mode: WANDB_MODE if it is set, else online if there is a key (WANDB_API_KEY, or an entry for the server in ~/.netrc), else offline, with a
message once. Online without a key becomes offline: W&B would prompt on a terminal and raise an error elsewhere. If a start fails (no
network, wrong key), the run continues offline.

Sent: settings, scalars, pictures and the exported encoder (card and weights, not the manifest). Not sent: console, code, git state,
requirements, machine information, host, user, paths (see `redact`).
"""

import netrc
import os
import secrets
import shutil
import sys
import tempfile
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import urlsplit

import numpy as np

from encoders.runtime.arrays import Array
from encoders.runtime.redact import redact_private

if TYPE_CHECKING:
    import wandb

Picture = str | Path | Array  # a PNG file, or (H, W[, 3]) uint8
WandbMode = Literal["online", "offline", "disabled"]
WANDB_SERVERS = ("api.wandb.ai", "api.forge.coreweave.com")  # names of the public service, under which `wandb login` stores keys
MAX_WANDB_FAILURES = 5  # failed calls after which the mirror gives up

# Names as in wandb 0.31; those that the installed version does not have are omitted.
QUIET_SETTINGS: dict[str, Any] = {
    "silent": True,
    "console": "off",
    "disable_git": True,
    "disable_code": True,
    "save_code": False,
    "disable_job_creation": True,
    "host": "",
    "username": "",
    "email": "",
    "program": "isograft",
    "x_disable_meta": True,
    "x_disable_machine_info": True,
    "x_disable_stats": True,
    "x_save_requirements": False,
    "x_transaction_log_flush_interval": 2.0,  # seconds; the default loses up to 15 at `kill -9`
    "init_timeout": float(os.environ.get("WANDB_INIT_TIMEOUT") or 20),  # seconds; with retries an unreachable server costs twice that
    "login_timeout": 5.0,
    "finish_timeout": 120.0,
    "reinit": "create_new",  # several runs in one process stay separate
}


def new_run_id() -> str:
    """A new run id of eight characters, like those of W&B."""
    return secrets.token_hex(4)


def decide_mode(requested: WandbMode | None = None) -> tuple[WandbMode, str]:
    """The mode, and the reason if it differs from the requested one ("" otherwise)."""
    wanted = requested or {"dryrun": "offline", "online": "online"}.get(mode := os.environ.get("WANDB_MODE", "").lower(), mode)
    if wanted == "disabled" or os.environ.get("WANDB_DISABLED", "").lower() == "true":
        return "disabled", ""
    if wanted == "offline" or has_api_key():
        return ("offline", "") if wanted == "offline" else ("online", "")
    return "offline", "no W&B key found (`wandb login`, or WANDB_API_KEY)"


def has_api_key() -> bool:
    """Whether W&B can log in without a prompt."""
    if os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_IDENTITY_TOKEN_FILE"):
        return True
    base = urlsplit(os.environ.get("WANDB_BASE_URL", "")).netloc
    try:
        hosts = netrc.netrc(os.environ.get("NETRC")).hosts
    except (OSError, netrc.NetrcParseError):
        return False
    return bool({base} & set(hosts)) if base else bool(set(WANDB_SERVERS) & set(hosts))


@dataclass(frozen=True)
class WandbRunSettings:
    """Settings of a W&B run, under the names that W&B uses."""

    id: str = field(default_factory=new_run_id)
    project: str = "isograft"
    group: str | None = None
    job_type: str | None = None
    name: str | None = None
    config: Mapping[str, object] = field(default_factory=dict)
    tags: tuple[str, ...] = ()


class WandbMirror:
    """One W&B run, or none: every method may be called in either case.

    Failures are recorded with their traceback in `run_dir/wandb-errors.log`."""

    def __init__(self, run_dir: Path, mode: WandbMode | None = None, settings: WandbRunSettings | None = None):
        self.run: wandb.Run | None = None
        self.scratch: Path | None = None
        self.run_dir, self.failures = run_dir.absolute(), 0
        chosen, reason = decide_mode(mode)
        attempts: list[WandbMode] = ["offline"] if chosen == "offline" else [chosen, "offline"]
        for attempt in attempts:
            if chosen == "disabled" or self.run is not None:
                return
            with self.record_failure(f"start ({attempt})"):
                if self.failures:
                    teardown_wandb()
                self.run = init_wandb_run(self.run_dir, attempt, settings or WandbRunSettings())
                if attempt == "offline":
                    print_wandb_message_once(
                        "offline", f"{reason and ': '}{reason}; send it later with `wandb sync {self.run_dir}/wandb/offline-run-*`"
                    )

    @contextmanager
    def record_failure(self, action: str) -> Iterator[None]:
        """Failures of W&B inside the block are recorded, reported once, and never raised."""
        try:
            yield
        except Exception:  # noqa: BLE001 (the tracker's boundary: no failure of W&B may stop a run)
            self.failures += 1
            with open(self.run_dir / "wandb-errors.log", "a") as file:
                file.write(f"{action}\n{traceback.format_exc()}\n")
            if self.failures == 1:
                print_wandb_message(f"{action} failed, the run continues; see {self.run_dir / 'wandb-errors.log'}")
            if self.failures == MAX_WANDB_FAILURES:
                self.run = None

    def log(self, step: int, values: dict[str, float]) -> None:
        with self.record_failure("log"):
            if self.run is not None:
                self.run.log(values, step=step)

    def image(self, step: int, name: str, picture: Picture) -> None:
        with self.record_failure("image"):
            if self.run is not None:
                self.run.log({name: to_wandb_image(picture)}, step=step)

    def summary(self, values: Mapping[str, object]) -> None:
        with self.record_failure("summary"):
            if self.run is not None:
                self.run.summary.update(redact_private(values))

    def artifact(self, name: str, folder: Path, metadata: Mapping[str, object]) -> None:
        """Online only: a later `wandb sync` would also upload the local path."""
        with self.record_failure("artifact"):
            if self.run is not None and not self.run.offline:
                self.scratch = self.scratch or Path(make_neutral_folder())
                self.run.log_artifact(build_model_artifact(name, folder, metadata, self.scratch))

    def table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
        with self.record_failure("table"):
            if self.run is not None:
                import wandb

                self.run.log({name: wandb.Table(columns=list(columns), data=[[redact_private(v) for v in row] for row in rows])})

    def use_artifact(self, artifact: str, sha256: Sequence[str]) -> None:
        """Marks the artifact with weights of one of these hashes as an input of the run. Online only: W&B does not support it offline."""
        with self.record_failure("lineage"):
            if self.run is not None and not self.run.offline:
                import wandb

                try:
                    latest = self.run.use_artifact(f"{artifact}:latest", type="model")
                except wandb.errors.CommError:
                    return  # pretrained offline, or under another account: the config identifies the weights
                if latest.metadata.get("sha256") not in sha256:
                    print_wandb_message(
                        f"the artifact {artifact}:latest has other weights than this benchmark; rerun the benchmark, or compare sha256"
                    )

    def save_comparison_view(self, metrics: Sequence[str]) -> str | None:
        with self.record_failure("workspace"):
            if self.run is not None and not self.run.offline:
                from encoders.runtime.wandb_views import save_workspace

                return save_workspace(self.run, metrics)
        return None

    def close(self, failed: bool) -> None:
        with self.record_failure("finish"):
            if self.run is not None:
                self.run.finish(exit_code=int(failed))
        self.run = None
        if self.scratch:
            shutil.rmtree(self.scratch, ignore_errors=True)


def init_wandb_run(run_dir: Path, mode: WandbMode, settings: WandbRunSettings) -> "wandb.Run | None":
    """The started W&B run; None when wandb is not installed."""
    try:
        import wandb
    except ModuleNotFoundError:
        print_wandb_message("not installed: only metrics.jsonl is written")
        return None
    supported = wandb.Settings.model_fields
    return wandb.init(
        project=settings.project,
        group=settings.group,
        job_type=settings.job_type,
        name=settings.name,
        tags=list(settings.tags),
        config=redact_private(settings.config),
        id=settings.id,
        resume="allow",
        mode=mode,
        dir=str(run_dir),
        settings=wandb.Settings(**{name: value for name, value in QUIET_SETTINGS.items() if name in supported}),
    )


def teardown_wandb() -> None:
    """Ends W&B's service process, which blocks the run's id after a failed start."""
    import wandb

    wandb.teardown()


def to_wandb_image(picture: Picture) -> "wandb.Image":
    """A W&B image of the pixels only, without the metadata of a PNG file."""
    import wandb
    from PIL import Image

    if isinstance(picture, str | Path):
        with Image.open(picture) as file:
            picture = np.asarray(file.convert("RGB"))
    return wandb.Image(picture)


def build_model_artifact(name: str, folder: Path, metadata: Mapping[str, object], scratch: Path) -> "wandb.Artifact":
    """The exported encoder as an artifact: the weights, and the card without paths. The manifest, which names patients, is not included.

    W&B sends the local path of every file, so each is addressed through `scratch`, a folder with a neutral name."""
    import wandb
    import yaml

    artifact = wandb.Artifact(name, type="model", metadata=redact_private(metadata))
    for path in sorted((*folder.glob("*.safetensors"), *folder.glob("*.yaml"))):
        alias = scratch / path.name
        if path.suffix == ".yaml":
            alias.write_text(yaml.safe_dump(redact_private(yaml.safe_load(path.read_text())), sort_keys=False))
        else:
            alias.symlink_to(path.absolute())
        artifact.add_file(str(alias), name=path.name, policy="immutable", skip_cache=True)  # no copy in the home folder
    return artifact


def make_neutral_folder() -> str:
    """A new temporary folder outside home folders, where possible."""
    return tempfile.mkdtemp(prefix="isograft-", dir=next((d for d in ("/tmp", "/var/tmp") if os.access(d, os.W_OK)), None))


def print_wandb_message(text: str) -> None:
    """Prints a line on standard error."""
    print(f"W&B: {text}", file=sys.stderr, flush=True)


_printed_once: set[str] = set()


def print_wandb_message_once(event: str, details: str) -> None:
    """Prints a line for the first `event` of this kind in this process: a benchmark opens a run for every encoder."""
    if event not in _printed_once:
        _printed_once.add(event)
        print_wandb_message(event + details)
