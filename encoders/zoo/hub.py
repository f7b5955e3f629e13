"""Weights from the Hugging Face hub: what is in the local cache first, the network only if it answers at once.

A look-up without a network blocks for most of a minute inside the hub's client; here an address that does not answer in two seconds
counts as offline. HF_HUB_OFFLINE=1 or ISOGRAFT_OFFLINE=1 switches the network off.
"""

import os
import socket
import threading
from pathlib import Path
from urllib.parse import urlparse
from urllib.request import getproxies

from encoders.runtime.errors import InputError

CONNECT_TIMEOUT_S = 2.0


class WeightsUnavailable(InputError):
    """The encoder is known, but its weights are not here and cannot be fetched; the message says which file to put where."""


def find_cached_file(repo: str, filename: str) -> Path | None:
    """The file in the hub's local cache, newest snapshot first; None when it is not there. Touches no network and imports nothing."""
    snapshots = hub_cache_dir() / f"models--{repo.replace('/', '--')}" / "snapshots"
    found = [p for p in snapshots.glob(f"*/{filename}") if p.is_file()]
    return max(found, key=lambda p: p.stat().st_mtime) if found else None


def hub_cache_dir() -> Path:
    """Where huggingface_hub keeps what it fetched."""
    if own := os.environ.get("HF_HUB_CACHE"):
        return Path(own)
    root = os.environ.get("HF_HOME") or Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "huggingface"
    return Path(root).expanduser() / "hub"


def fetch_file(repo: str, filename: str, advice: str) -> Path:
    """The file, from the cache or the network. Raises Unavailable, with `advice`, within seconds when there is neither."""
    if here := find_cached_file(repo, filename):
        return here
    if any(os.environ.get(name, "").lower() in ("1", "true", "yes", "on") for name in ("HF_HUB_OFFLINE", "ISOGRAFT_OFFLINE")):
        raise WeightsUnavailable(f"{repo}/{filename} is not in the local cache, and the network is switched off; {advice}")
    if not is_reachable(os.environ.get("HF_ENDPOINT") or "https://huggingface.co"):
        raise WeightsUnavailable(f"{repo}/{filename} is not in the local cache, and huggingface.co does not answer; {advice}")
    from huggingface_hub import hf_hub_download  # heavy, and never needed offline

    try:
        return Path(hf_hub_download(repo, filename))
    except (OSError, RuntimeError, ValueError) as wrong:  # its HTTP errors are OSErrors
        raise WeightsUnavailable(f"{repo}/{filename} could not be fetched ({str(wrong).splitlines()[0]}); {advice}") from wrong


def is_reachable(address: str) -> bool:
    """Whether the address, or the proxy in front of it, accepts a connection within two seconds."""
    target = urlparse(getproxies().get("https") or address)
    answered = threading.Event()

    def knock() -> None:
        try:
            socket.create_connection((target.hostname or "", target.port or 443), timeout=CONNECT_TIMEOUT_S).close()
            answered.set()
        except OSError:
            pass

    thread = threading.Thread(target=knock, daemon=True)  # name look-ups have no time limit of their own
    thread.start()
    thread.join(CONNECT_TIMEOUT_S)
    return answered.is_set()
