"""Sending an encoder to a folder, the Hugging Face hub or Weights & Biases, as the folder that `encoders export` writes.

What was sent is compared by sha256 with what the other side has. The token of the hub and the key of W&B are those of their own clients.
"""

import os
import shutil
import tempfile
from pathlib import Path
from typing import NamedTuple

from encoders.runtime.errors import InputError
from encoders.runtime.files import ensure_writable, process_tag, sha256_file, sync_folder
from encoders.runtime.tracker import TrackedRun
from encoders.runtime.wandb_artifact import make_neutral_folder
from encoders.runtime.wandb_start import decide_mode, init_wandb_run
from encoders.zoo.card import Card
from encoders.zoo.export_folder import export_folder
from encoders.zoo.hub import is_offline, is_reachable
from encoders.zoo.hub_name import HUB_ENDPOINT, HUB_PREFIX, HubRepo, parse_hub_name
from encoders.zoo.wandb_name import WANDB_PREFIX, ArtifactName, parse_artifact_name

WEIGHTS = "model.safetensors"
SECOND_COPY = "look for it there, and push again"


class PushedEncoder(NamedTuple):
    """Where an encoder was sent to, its sha256, and what whoever gets it must know."""

    place: str
    sha256: str
    warnings: list[str]


def push_encoder(name: str, target: str, with_manifest: bool = False, public: bool = False) -> PushedEncoder:
    """Exports the encoder and sends it to `hf:OWNER/NAME`, `wandb:ENTITY/PROJECT/NAME`, or below a folder, as FOLDER/NAME.

    public: of a repository of the hub that is created; existing ones keep their visibility.  Raises InputError if the target cannot be
    reached or has another encoder of that name."""
    if target.startswith(HUB_PREFIX):
        repo = parse_hub_name(target)
        _require_network(os.environ.get("HF_ENDPOINT") or HUB_ENDPOINT)
    elif target.startswith(WANDB_PREFIX):
        artifact = parse_artifact_name(target)
        if decide_mode()[0] != "online":
            raise InputError(f"W&B is {decide_mode()[1] or decide_mode()[0]}; artifacts are sent online only (WANDB_MODE=online and a key)")
    scratch = Path(make_neutral_folder())  # the clients send the path of every file
    try:
        exported = export_folder(name, scratch / "encoder", with_manifest)
        card = Card.read(scratch / "encoder" / "card.yaml")
        if target.startswith(HUB_PREFIX):
            place = _push_to_hub(exported.folder, repo, exported.sha256, public)
        elif target.startswith(WANDB_PREFIX):
            place = _push_to_wandb(exported.folder, artifact, card)
        else:
            place = _push_to_folder(exported.folder, Path(target), card)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return PushedEncoder(place, exported.sha256, exported.warnings)


def _push_to_folder(exported: Path, target: Path, card: Card) -> str:
    """FOLDER/NAME, whole or not at all."""
    short = card.name.replace("/", "_").replace(":", "_")
    folder = ensure_writable(target) / short
    if folder.exists():
        own = folder / WEIGHTS
        if own.is_file() and sha256_file(own) == card.sha256:
            return str(folder)
        raise InputError(f"{folder} exists and holds other weights; push to another folder, or remove it if it is no longer needed")
    part = Path(tempfile.mkdtemp(prefix=f".{short}.{process_tag()}.", suffix=".part", dir=target))
    try:
        for path in exported.iterdir():
            shutil.copyfile(path, part / path.name)
        _check_sha256(sha256_file(part / WEIGHTS), card.sha256, folder)
        part.chmod(0o755)
        part.rename(folder)
        sync_folder(target)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return str(folder)


def _push_to_hub(exported: Path, repo: HubRepo, sha256: str, public: bool) -> str:
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, LocalTokenNotFoundError, RepositoryNotFoundError

    api = HfApi(endpoint=os.environ.get("HF_ENDPOINT") or HUB_ENDPOINT)
    try:
        api.create_repo(repo.repo, private=not public, exist_ok=True)
        done = api.upload_folder(repo_id=repo.repo, folder_path=exported, revision=repo.revision, commit_message="Upload an encoder")
        (stored,) = api.get_paths_info(repo.repo, WEIGHTS, revision=done.oid)
    except (LocalTokenNotFoundError, RepositoryNotFoundError) as error:
        raise InputError(
            f"the hub does not let you write to {repo.repo}: run `hf auth login` with a token that may write (or set HF_TOKEN), and "
            "check the owner's name"
        ) from error
    except (HfHubHTTPError, OSError, RuntimeError, ValueError) as error:
        raise InputError(
            f"{repo.repo} could not be written ({str(error).splitlines()[0]}); the encoder is unchanged, push again"
        ) from error
    large = getattr(stored, "lfs", None)
    _check_sha256(large.sha256 if large else None, sha256, repo)
    return f"{HUB_ENDPOINT}/{repo.repo} ({'public' if public else 'private, if it is new'}), commit {done.oid}"


def _push_to_wandb(exported: Path, target: ArtifactName, card: Card) -> str:
    import wandb

    if target.version is not None:
        raise InputError(f"{target} names a version, and W&B numbers versions itself; leave :{target.version} out")
    scratch = Path(make_neutral_folder())
    try:
        settings = TrackedRun(project=target.project, job_type="push", name=f"push-{target.name}", config={"encoder": card.name})
        os.environ.setdefault("WANDB_ENTITY", target.entity)
        run = init_wandb_run(scratch, "online", settings)
        if run is None:
            raise InputError("wandb is not installed; `pip install wandb`")
        with run:
            artifact = wandb.Artifact(
                target.name, type="model", metadata={"sha256": card.sha256, "arch": card.arch, "licence": card.licence}
            )
            for path in sorted(exported.iterdir()):
                artifact.add_file(str(path), name=path.name, policy="immutable", skip_cache=True)
            run.log_artifact(artifact).wait()
            return f"W&B artifact {target.entity}/{target.project}/{artifact.name}"
    except (wandb.errors.Error, OSError, ValueError) as error:
        raise InputError(f"{target} could not be written ({str(error).splitlines()[0]}); the encoder is unchanged, push again") from error
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _check_sha256(found: str | None, expected: str | None, place: object) -> None:
    if found != expected:
        raise InputError(f"{place} has weights of sha256 {str(found)[:16]}..., sent were {str(expected)[:16]}...; {SECOND_COPY}")


def _require_network(address: str) -> None:
    if is_offline():
        raise InputError("the network is switched off by HF_HUB_OFFLINE or ISOGRAFT_OFFLINE; `encoders push NAME FOLDER` needs none")
    if not is_reachable(address):
        raise InputError(f"{address} does not answer; `encoders push NAME FOLDER` needs no network")
