"""Two processes on this machine that are the two ranks of one group."""

import os
import socket

import torch
import torch.distributed as td
import torch.multiprocessing as mp

from tests.forked import use_fork_server


def run_on_two_ranks(work, *args):
    """`work(rank, *args)` on each of two ranks, which talk over gloo, one thread each. Raises what one of them raises."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    use_fork_server()
    mp.start_processes(_run_rank, args=(port, dict(os.environ), work, args), nprocs=2, start_method="forkserver")


def _run_rank(rank, port, environment, work, args):
    os.environ.clear()
    os.environ.update(environment)  # that of the server is older
    torch.set_num_threads(1)
    td.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
    work(rank, *args)
    td.destroy_process_group()
