"""A model repository of the Hugging Face hub: from the local cache if it is there, otherwise from the network.

Only what describes an encoder and one weight file are downloaded. The token is that of huggingface_hub (`hf auth login`, or HF_TOKEN); none
is read or stored here. The files of the cache are named by their sha256, which is checked before they are used.
"""

import os
import re
from pathlib import Path

from encoders.importing.hub_config import OPEN_CLIP_CONFIG, WEIGHT_FILES, WEIGHT_SUFFIXES, is_hub_folder
from encoders.runtime.errors import InputError
from encoders.runtime.files import sha256_file
from encoders.zoo.hub import WeightsUnavailable, hub_cache_dir, is_offline, is_reachable
from encoders.zoo.hub_name import HUB_ENDPOINT, HubRepo

DESCRIPTION_FILES = ("config.json", "preprocessor_config.json", OPEN_CLIP_CONFIG, "README.md", "card.yaml", "manifest.npz")
SHA256_NAME = re.compile(r"[0-9a-f]{64}")


def fetch_hub_folder(repo: HubRepo) -> Path:
    """The folder of the repository's snapshot, with its description and its weight file.

    Raises WeightsUnavailable if it is neither in the cache nor downloadable, with the reason and what to do, and InputError for a weight
    file whose sha256 is not the one under which it was downloaded."""
    folder = find_snapshot(repo)
    if folder is None:
        folder = _download(repo)
    for path in sorted(folder.iterdir()):
        check_cached_file(path)
    return folder


def find_snapshot(repo: HubRepo) -> Path | None:
    """The snapshot in the local cache that has a description and weights; None if there is none. Uses no network."""
    root = hub_cache_dir() / f"models--{repo.repo.replace('/', '--')}"
    reference = root / "refs" / (repo.revision or "main")
    commit = reference.read_text().strip() if reference.is_file() else repo.revision
    folder = root / "snapshots" / commit if commit else None
    return folder if folder and is_hub_folder(folder) and _has_weights(folder) else None


def check_cached_file(path: Path) -> None:
    """Raises InputError if a file of the cache is not the one that was downloaded: large files are stored under their sha256."""
    stored = path.resolve()
    if stored.is_file() and SHA256_NAME.fullmatch(stored.name) and sha256_file(stored) != stored.name:
        raise InputError(f"{path} is damaged: its sha256 is not {stored.name[:16]}...; remove {stored} and run the command again")


def _has_weights(folder: Path) -> bool:
    return any(path.suffix in WEIGHT_SUFFIXES and path.is_file() for path in folder.iterdir())


def _download(repo: HubRepo) -> Path:
    page = f"{HUB_ENDPOINT}/{repo.repo}"
    by_hand = f"download it where there is a network (`hf download {repo.repo} --local-dir FOLDER`) and run `encoders import FOLDER`"
    if is_offline():
        raise WeightsUnavailable(f"{repo} is not in the local cache {hub_cache_dir()}, and the network is switched off; {by_hand}")
    endpoint = os.environ.get("HF_ENDPOINT") or HUB_ENDPOINT
    if not is_reachable(endpoint):
        raise WeightsUnavailable(f"{repo} is not in the local cache {hub_cache_dir()}, and {endpoint} does not answer; {by_hand}")
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, RepositoryNotFoundError, RevisionNotFoundError

    try:
        names = HfApi(endpoint=endpoint).list_repo_files(repo.repo, revision=repo.revision)
        wanted = select_files(names, repo)
        return Path(
            snapshot_download(repo.repo, revision=repo.revision, allow_patterns=wanted, cache_dir=hub_cache_dir(), endpoint=endpoint)
        )
    except GatedRepoError as error:
        raise WeightsUnavailable(
            f"{repo} is gated: its owner gives access on request. Accept its terms at {page}, run `hf auth login` with a token of that "
            "account (or set HF_TOKEN), and run the command again"
        ) from error
    except RepositoryNotFoundError as error:
        raise WeightsUnavailable(
            f"the hub has no model {repo.repo}, or it is private; check {page}, and run `hf auth login` if it is private"
        ) from error
    except RevisionNotFoundError as error:
        raise WeightsUnavailable(f"{repo.repo} has no branch, tag or commit {repo.revision!r}; see {page}/tree/main") from error
    except InputError:
        raise
    except (HfHubHTTPError, OSError, RuntimeError, ValueError) as error:
        raise WeightsUnavailable(f"{repo} could not be downloaded ({str(error).splitlines()[0]}); {by_hand}") from error


def select_files(names: list[str], repo: HubRepo) -> list[str]:
    """The description files and the weight file of a repository. Raises InputError if its weights are none or several files."""
    top = [name for name in names if "/" not in name]
    known = next((name for name in WEIGHT_FILES if name in top), None)
    weights = [known] if known else [name for name in top if name.endswith(WEIGHT_SUFFIXES)]
    if len(weights) != 1:
        shards = any(name.endswith(".index.json") for name in top)
        what = "its weights in several files" if shards or weights else "no weight file at its top"
        shown = f" ({', '.join(weights[:4])})" if weights else ""
        raise InputError(f"{repo} has {what}{shown}; download the file you mean and run `encoders import FILE`")
    return [*(name for name in DESCRIPTION_FILES if name in top), *weights]
