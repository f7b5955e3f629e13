"""Weights from the Hugging Face hub: from the local cache if possible, otherwise from the network if it is reachable.

Offline, a request of the hub's client blocks for most of a minute. Here an address that does not accept a connection within two seconds
counts as offline. HF_HUB_OFFLINE=1 or ISOGRAFT_OFFLINE=1 disables the network.
"""

import os
import re
import socket
import threading
from pathlib import Path
from urllib.parse import urlparse
from urllib.request import getproxies

from encoders.runtime.errors import InputError
from encoders.runtime.known_hash import sha256_of_state

CONNECT_TIMEOUT_S = 2.0


class WeightsUnavailable(InputError):
    """The weights of a known encoder are neither available locally nor downloadable; the message names the file and its folder."""


def find_cached_file(repo: str, filename: str) -> Path | None:
    """The newest snapshot of the file in the hub's local cache; None if there is none. Uses no network and imports no library."""
    snapshots = hub_cache_dir() / f"models--{repo.replace('/', '--')}" / "snapshots"
    files = [p for p in snapshots.glob(f"*/{filename}") if p.is_file()]
    return max(files, key=lambda p: p.stat().st_mtime) if files else None


def hub_cache_dir() -> Path:
    """The cache folder of huggingface_hub."""
    if own := os.environ.get("HF_HUB_CACHE"):
        return Path(own)
    root = os.environ.get("HF_HOME") or Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "huggingface"
    return Path(root).expanduser() / "hub"


def fetch_file(repo: str, filename: str, advice: str) -> Path:
    """The file, from the cache or the network. Raises WeightsUnavailable, with `advice`, within seconds if neither has it."""
    if cached := find_cached_file(repo, filename):
        return cached
    if is_offline():
        raise WeightsUnavailable(f"{repo}/{filename} is not in the local cache, and the network is switched off; {advice}")
    if not is_reachable(os.environ.get("HF_ENDPOINT") or "https://huggingface.co"):
        raise WeightsUnavailable(f"{repo}/{filename} is not in the local cache, and huggingface.co does not answer; {advice}")
    from huggingface_hub import hf_hub_download  # a slow import, never needed offline

    try:
        return Path(hf_hub_download(repo, filename))
    except (OSError, RuntimeError, ValueError) as error:  # HTTP errors of huggingface_hub are OSErrors
        raise WeightsUnavailable(f"{repo}/{filename} could not be downloaded ({str(error).splitlines()[0]}); {advice}") from error


def require_intact_file(path: Path) -> Path:
    """`path` itself. Raises InputError for a file of the hub's cache whose bytes are not those that were downloaded.

    The cache names each large file by its SHA-256. The file is read once for each state of it; see `known_hash`."""
    name = path.resolve().name
    if re.fullmatch("[0-9a-f]{64}", name) and (actual := sha256_of_state(path)) != name:
        raise InputError(
            f"{path} has sha256 {actual[:16]}..., the hub has {name[:16]}...: the cached file was damaged or changed; remove "
            f"{path.resolve()}, and it is downloaded again"
        )
    return path


def is_offline() -> bool:
    """Whether the network is switched off by HF_HUB_OFFLINE or ISOGRAFT_OFFLINE."""
    return any(os.environ.get(name, "").lower() in ("1", "true", "yes", "on") for name in ("HF_HUB_OFFLINE", "ISOGRAFT_OFFLINE"))


def is_reachable(address: str) -> bool:
    """Whether the address, or the proxy in front of it, accepts a connection within two seconds."""
    target = urlparse(getproxies().get("https") or address)
    connected = threading.Event()

    def connect() -> None:
        try:
            socket.create_connection((target.hostname or "", target.port or 443), timeout=CONNECT_TIMEOUT_S).close()
            connected.set()
        except OSError:
            pass

    thread = threading.Thread(target=connect, daemon=True)  # DNS look-ups have no time limit of their own
    thread.start()
    thread.join(CONNECT_TIMEOUT_S)
    return connected.is_set()
