"""The start of a W&B run: its mode, what the environment decides, and the settings under which nothing private is sent.

Mode: WANDB_MODE if it is set, else online if there is a key (WANDB_API_KEY, or an entry for the server in ~/.netrc), else offline, with a
message once. Online without a key becomes offline: W&B would prompt on a terminal and raise an error elsewhere.

WANDB_PROJECT and WANDB_RUN_GROUP replace ours, WANDB_TAGS (comma-separated) are added to ours, and WANDB_ENTITY is read by W&B itself.
WANDB_NOTES is not sent.
"""

import netrc
import os
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import urlsplit

from encoders.runtime.redact import redact_private
from encoders.runtime.tracker import TrackedRun, print_tracker_message
from encoders.runtime.wandb_agent import agent_environment

if TYPE_CHECKING:
    import wandb

WandbMode = Literal["online", "offline", "disabled"]
WANDB_SERVERS = ("api.wandb.ai", "api.forge.coreweave.com")  # names of the public service, under which `wandb login` stores keys
LONGEST_TAG = 64  # characters; W&B refuses a run with a longer one

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


def clean_tags(tags: Iterable[str]) -> list[str]:
    """Each tag once, without private parts, as W&B accepts them."""
    clean = (str(redact_private(tag.strip()))[:LONGEST_TAG] for tag in tags)
    return list(dict.fromkeys(tag for tag in clean if tag))


def init_wandb_run(run_dir: Path, mode: WandbMode, described: TrackedRun) -> "wandb.Run | None":
    """The started W&B run; None when wandb is not installed."""
    try:
        import wandb
    except ModuleNotFoundError:
        print_tracker_message("W&B", "not installed: only metrics.jsonl is written")
        return None
    supported = wandb.Settings.model_fields
    settings = QUIET_SETTINGS | {"x_disable_stats": not described.system_metrics}
    with agent_environment(described.id):
        return wandb.init(
            project=os.environ.get("WANDB_PROJECT") or described.project,
            group=os.environ.get("WANDB_RUN_GROUP") or described.group,
            job_type=described.job_type,
            name=described.name,
            tags=clean_tags([*described.tags, *os.environ.get("WANDB_TAGS", "").split(",")]),
            config=redact_private(described.config),
            notes="",  # those of WANDB_NOTES are free text about this machine's data, and are not sent
            id=described.id,
            resume="allow",
            mode=mode,
            dir=str(run_dir),
            settings=wandb.Settings(**{name: value for name, value in settings.items() if name in supported}),
        )


def teardown_wandb() -> None:
    """Ends W&B's service process, which blocks the run's id after a failed start."""
    import wandb

    wandb.teardown()
