"""Console commands that start in milliseconds: forked from a server that has imported torch and the packages once.

A new interpreter needs about four CPU seconds for these imports, and a page of the documentation calls up to six commands. `serve_commands`
starts the server and yields a folder of programs for the front of PATH: the three console scripts, and `python` for the scripts of a page.
Each sends its words, environment, folder and standard streams to the server over a socket. The server forks, and the forked process runs
the installed script of that name. A signal to the program reaches that process, and the program ends as that process ends.

A command from here differs from a new interpreter in what was imported before it. The server has run no operation of torch and has one
thread; a command whose environment differs in a variable that a library reads on import (`READ_ON_IMPORT`) is refused. Tests of imports, of
the start of a command, and of a process that is killed start interpreters of their own.
"""

import atexit
import gc
import importlib
import json
import os
import pkgutil
import runpy
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import weakref
from contextlib import contextmanager, suppress
from pathlib import Path

TOOLS = ("encoders", "pretrain", "transfer")
LIBRARIES = ("torch", "timm", "matplotlib.figure", "matplotlib.backends.backend_agg")  # beside what the packages import at once
READ_ON_IMPORT = ("OMP_", "GOMP_", "KMP_", "MKL_", "OPENBLAS_", "CUDA_", "HF_", "MPL")
FORWARDED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
PROGRAM = '#!/bin/sh\n[ -f "{script}" ] || exec "{python}" "$@"\nexec "{python}" -IS "{file}" "{socket}" {words}\n'


@contextmanager
def serve_commands():
    """Starts the server; yields the folder of programs. The server ends with the block, or with this process."""
    bin_folder = Path(sys.executable).parent
    with tempfile.TemporaryDirectory(prefix="isograft-commands-") as folder:  # a short path: that of a socket has at most 107 bytes
        address = Path(folder) / "socket"
        for name, script in [*((tool, bin_folder / tool) for tool in TOOLS), ("python", "$1")]:
            words = '"$@"' if name == "python" else f'"{script}" "$@"'
            program = Path(folder) / name
            program.write_text(PROGRAM.format(script=script, python=sys.executable, file=__file__, socket=address, words=words))
            program.chmod(0o755)
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        server = subprocess.Popen([sys.executable, __file__, address], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment)
        try:
            assert server.stdout.readline() == b"ready\n", "the server of commands did not start"
            yield Path(folder)
        finally:
            server.stdin.close()
            server.wait(60)
            server.stdout.close()


def _serve(address):
    """Imports the packages, and forks for every connection until standard input is closed."""
    sys.path.pop(0)  # this folder
    _bound_spinning(os.environ)  # as a command does, before torch is imported
    started_with = dict(os.environ)
    for name in LIBRARIES:
        importlib.import_module(name)
    for tool in TOOLS:
        for module in pkgutil.walk_packages(importlib.import_module(tool).__path__, f"{tool}."):
            if not module.name.endswith("__main__"):
                importlib.import_module(module.name)
    gc.collect()
    gc.freeze()  # a collection in a forked process would copy all pages
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(address)
        listener.listen(16)
        print("ready", flush=True)
        while 0 not in select.select([0, listener], [], [])[0]:
            connection, _ = listener.accept()
            if os.fork() == 0:
                listener.close()
                _run_for(connection, started_with)
            connection.close()
            with suppress(ChildProcessError):
                while os.waitpid(-1, os.WNOHANG) != (0, 0):
                    pass


def _bound_spinning(environment):
    importlib.import_module("encoders.runtime.openmp").bound_spinning(environment)


def _run_for(connection, started_with):
    """In a process beside the server: forks the command, reports its id and how it ended, and kills it if its program is killed."""
    _, streams, _, _ = socket.recv_fds(connection, 1, 3)
    words, environment, folder, umask = json.loads(connection.makefile().readline())
    pid = os.fork()
    if pid == 0:
        connection.close()
        _become_command(words, environment, folder, umask, streams, started_with)
        return
    ending = os.pidfd_open(pid)
    connection.sendall(b"%d\n" % pid)
    if ending not in select.select([ending, connection], [], [])[0]:
        os.kill(pid, signal.SIGKILL)
    _, status = os.waitpid(pid, 0)
    with suppress(OSError):
        connection.sendall(b"%d\n" % os.waitstatus_to_exitcode(status))
    os._exit(0)


def _become_command(words, environment, folder, umask, streams, started_with):
    """Makes this process the interpreter that runs `words`, a script and its arguments; ends with it."""
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a server that a shell started in the background ignores it
    sys.stdout.reconfigure(line_buffering=sys.stdout.isatty())
    effective = dict(environment)
    _bound_spinning(effective)
    changed = {name for name, _ in started_with.items() ^ effective.items() if name.startswith(READ_ON_IMPORT)}
    if changed:
        sys.exit(f"a command with other values of {', '.join(sorted(changed))} needs an interpreter of its own")
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    os.umask(umask)
    added = [path for path in environment.get("PYTHONPATH", "").split(os.pathsep) if path]
    sys.path[:0] = [os.path.dirname(os.path.abspath(words[0])), *added]
    sys.argv = words
    tempfile.tempdir = None  # found anew from the environment
    importlib.import_module("numpy").random.seed()  # its state is that of the server
    weakref.finalize._registry.clear()  # what imports made is removed by the server
    importlib.import_module("wandb.sdk.data_types._private").MEDIA_TMP.__init__("wandb-media")  # a folder that wandb makes on import
    status = 0
    try:
        runpy.run_path(words[0], run_name="__main__")
    except SystemExit as left:
        status = left.code or 0
        if not isinstance(status, int):
            print(status, file=sys.stderr)
            status = 1
    except BaseException as error:  # noqa: BLE001  boundary: the interpreter of a command
        sys.excepthook(type(error), error, error.__traceback__)
        status = -signal.SIGINT if isinstance(error, KeyboardInterrupt) else 1
    threading._shutdown()
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    if status < 0:
        signal.signal(-status, signal.SIG_DFL)
        os.kill(os.getpid(), -status)
    os._exit(status)  # to free every imported module would take most of the time of a short command


def _ask_server(address, words):
    """The program: has the server run the words, passes signals on, and ends as the command ended."""
    signal.pthread_sigmask(signal.SIG_BLOCK, FORWARDED)
    umask = os.umask(0)
    os.umask(umask)
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(address)
        socket.send_fds(connection, [b"."], [0, 1, 2])
        connection.sendall(json.dumps([words, dict(os.environ), os.getcwd(), umask]).encode() + b"\n")
        answers = connection.makefile()
        pid = int(answers.readline())
        for number in FORWARDED:
            signal.signal(number, lambda number, _: os.kill(pid, number))
        signal.pthread_sigmask(signal.SIG_UNBLOCK, FORWARDED)
        status = int(answers.readline())
    if status < 0:
        signal.signal(-status, signal.SIG_DFL)
        os.kill(os.getpid(), -status)
    sys.exit(status)


if __name__ == "__main__":
    if len(sys.argv) == 2:
        _serve(sys.argv[1])
    else:
        _ask_server(sys.argv[1], sys.argv[2:])
