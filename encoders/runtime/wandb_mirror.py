"""Weights & Biases as a mirror: we decide its mode before it starts; it never asks, never hangs, and never stops a run.

Mode: WANDB_MODE if it is set, else online where there is a key (WANDB_API_KEY, or an entry for the server in ~/.netrc), else offline, which
is said once. Online without a key, asked for or not, becomes offline: W&B would prompt on a terminal and raise elsewhere. When a start
fails (no network, wrong key), the run goes on offline.

Sent: the settings, scalars, pictures and the exported encoder (card and weights, not the manifest). Not sent: console, code, git state,
requirements, machine information, host, user, paths (see `discreet`).
"""

import netrc
import os
import secrets
import shutil
import sys
import tempfile
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from encoders.runtime.redact import redact_private

WandbMode = Literal["online", "offline", "disabled"]
WANDB_SERVERS = ("api.wandb.ai", "api.forge.coreweave.com")  # the public service's names, in which `wandb login` stores keys
MAX_WANDB_FAILURES = 5  # failed calls: a mirror that keeps failing only fills its log

# As wandb 0.31 spells them; those that the installed version does not know are left out.
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
    "reinit": "create_new",  # several runs in one process stay several
}


def new_run_id() -> str:
    """A fresh run id, eight characters as W&B makes them."""
    return secrets.token_hex(4)


def decide_mode(asked: WandbMode | None = None) -> tuple[WandbMode, str]:
    """The mode, and why it is not what one might expect ("" if it is)."""
    wanted = asked or {"dryrun": "offline", "online": "online"}.get(mode := os.environ.get("WANDB_MODE", "").lower(), mode)
    if wanted == "disabled" or os.environ.get("WANDB_DISABLED", "").lower() == "true":
        return "disabled", ""
    if wanted == "offline" or has_api_key():
        return ("offline", "") if wanted == "offline" else ("online", "")
    return "offline", "no W&B key found (`wandb login`, or WANDB_API_KEY)"


def has_api_key() -> bool:
    """Whether W&B could log in without asking."""
    if os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_IDENTITY_TOKEN_FILE"):
        return True
    base = urlsplit(os.environ.get("WANDB_BASE_URL", "")).netloc
    try:
        known = netrc.netrc(os.environ.get("NETRC")).hosts
    except (OSError, netrc.NetrcParseError):
        return False
    return bool({base} & set(known)) if base else bool(set(WANDB_SERVERS) & set(known))


class WandbMirror:
    """One W&B run, or nothing: every method may be called whatever became of it.

    Failures are recorded with their traceback in `run_dir/wandb-errors.log`."""

    def __init__(self, run_dir: Path, mode: WandbMode | None = None, **about: Any):
        self.run: Any = None
        self.scratch: Path | None = None
        self.run_dir, self.failures = run_dir.absolute(), 0
        chosen, why = decide_mode(mode)
        for attempt in dict.fromkeys((chosen, "offline")):
            if chosen == "disabled" or self.run is not None:
                return
            with self.boundary(f"start ({attempt})"):
                if self.failures:
                    teardown_wandb()
                self.run = init_wandb_run(self.run_dir, attempt, about)
                if attempt == "offline":
                    print_wandb_message_once(
                        "offline", f"{why and ': '}{why}; send it later with `wandb sync {self.run_dir}/wandb/offline-run-*`"
                    )

    @contextmanager
    def boundary(self, what: str) -> Iterator[None]:
        """Here a failure of the tracker ends: recorded, told once, never raised."""
        try:
            yield
        except Exception:  # noqa: BLE001 (the tracker's boundary: no failure of W&B may stop a run)
            self.failures += 1
            with open(self.run_dir / "wandb-errors.log", "a") as file:
                file.write(f"{what}\n{traceback.format_exc()}\n")
            if self.failures == 1:
                print_wandb_message(f"{what} failed, the run goes on; see {self.run_dir / 'wandb-errors.log'}")
            if self.failures == MAX_WANDB_FAILURES:
                self.run = None

    def log(self, step: int, values: dict[str, float]) -> None:
        with self.boundary("log"):
            if self.run is not None:
                self.run.log(values, step=step)

    def image(self, step: int, name: str, picture: Any) -> None:
        with self.boundary("image"):
            if self.run is not None:
                self.run.log({name: to_wandb_image(picture)}, step=step)

    def summary(self, flat: dict[str, Any]) -> None:
        with self.boundary("summary"):
            if self.run is not None:
                self.run.summary.update(redact_private(flat))

    def artifact(self, name: str, folder: Path, metadata: dict[str, Any]) -> None:
        """Only online: kept for a later `wandb sync`, it would be sent with the path where it was kept."""
        with self.boundary("artifact"):
            if self.run is not None and not self.run.offline:
                self.scratch = self.scratch or Path(make_neutral_folder())
                self.run.log_artifact(build_model_artifact(name, folder, metadata, self.scratch))

    def table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        with self.boundary("table"):
            if self.run is not None:
                import wandb

                self.run.log({name: wandb.Table(columns=list(columns), data=[[redact_private(v) for v in row] for row in rows])})

    def uses(self, artifact: str, sha256: Sequence[str]) -> None:
        """Lineage: the artifact of these very weights becomes an input of the run. Only online: W&B cannot say it offline."""
        with self.boundary("lineage"):
            if self.run is not None and not self.run.offline:
                import wandb

                try:
                    known = self.run.use_artifact(f"{artifact}:latest", type="model")
                except wandb.errors.CommError:
                    return  # pretrained offline, or under another account: the config says which weights they are
                if known.metadata.get("sha256") not in sha256:
                    print_wandb_message(
                        f"the artifact {artifact}:latest is of other weights than those benched (bench again, or look at sha256)"
                    )

    def side_by_side(self, metrics: Sequence[str]) -> str | None:
        with self.boundary("workspace"):
            if self.run is not None and not self.run.offline:
                from encoders.runtime.wandb_views import save_workspace

                return save_workspace(self.run, metrics)
        return None

    def close(self, failed: bool) -> None:
        with self.boundary("finish"):
            if self.run is not None:
                self.run.finish(exit_code=int(failed))
        self.run = None
        if self.scratch:
            shutil.rmtree(self.scratch, ignore_errors=True)


def init_wandb_run(run_dir: Path, mode: str, about: dict[str, Any]) -> Any:
    """The started W&B run; None when wandb is not installed. `about` as in Mirror's caller, Track."""
    try:
        import wandb
    except ModuleNotFoundError:
        print_wandb_message("not installed: metrics.jsonl alone is written")
        return None
    known = wandb.Settings.model_fields
    return wandb.init(
        project=about["project"],
        group=about["group"],
        job_type=about["job_type"],
        name=about["name"],
        tags=list(about["tags"]),
        config=redact_private(about["config"]),
        id=about["id"],
        resume="allow",
        mode=mode,  # type: ignore[arg-type]
        dir=str(run_dir),
        settings=wandb.Settings(**{name: value for name, value in QUIET_SETTINGS.items() if name in known}),
    )


def teardown_wandb() -> None:
    """Ends W&B's service process: after a failed start it holds the run's id as taken."""
    import wandb

    wandb.teardown()


def to_wandb_image(picture: Any) -> Any:
    """A W&B image of the pixels alone: a PNG file's own metadata are left behind."""
    import numpy as np
    import wandb
    from PIL import Image

    if isinstance(picture, str | Path):
        with Image.open(picture) as file:
            picture = np.asarray(file.convert("RGB"))
    return wandb.Image(picture)


def build_model_artifact(name: str, folder: Path, metadata: dict[str, Any], scratch: Path) -> Any:
    """The exported encoder as an artifact: weights as they are, the card without paths; the manifest, which tells of patients, stays.

    W&B sends the local path of every file along: so each is named through `scratch`, a folder whose name tells nothing."""
    import wandb
    import yaml

    made = wandb.Artifact(name, type="model", metadata=redact_private(metadata))
    for path in sorted((*folder.glob("*.safetensors"), *folder.glob("*.yaml"))):
        alias = scratch / path.name
        if path.suffix == ".yaml":
            alias.write_text(yaml.safe_dump(redact_private(yaml.safe_load(path.read_text())), sort_keys=False))
        else:
            alias.symlink_to(path.absolute())
        made.add_file(str(alias), name=path.name, policy="immutable", skip_cache=True)  # no copies in the home folder
    return made


def make_neutral_folder() -> str:
    """A fresh folder outside anybody's home, if there is such a place."""
    return tempfile.mkdtemp(prefix="isograft-", dir=next((d for d in ("/tmp", "/var/tmp") if os.access(d, os.W_OK)), None))


def print_wandb_message(text: str) -> None:
    """A line for a person, on standard error."""
    print(f"W&B: {text}", file=sys.stderr, flush=True)


_printed_once: set[str] = set()


def print_wandb_message_once(what: str, more: str) -> None:
    """A line for a person the first time that `what` happens in this process: a benchmark opens a run for every encoder."""
    if what not in _printed_once:
        _printed_once.add(what)
        print_wandb_message(what + more)
