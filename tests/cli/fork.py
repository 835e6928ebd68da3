"""Run `hpo` again and again, each time in a fork of this process, which has imported everything once.

A fork is a process like any other: it has its own directory, environment, arguments and standard streams,
waits for its threads, calls what is to be called at exit, and exits with a code or by a signal. Shared are
the seconds of imports alone, and only the taking apart of what was imported is left out at the end.
This file is a program: it reads a request per line of standard input, a JSON object, and writes a line
with the exit code (negative: the number of the signal) to standard output.
"""

import atexit
import gc
import importlib
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

IMPORTED = (
    "dashboards.commands",
    "hpo.cli.live",
    "hpo.cli.main",
    "hpo.cli.tables",
    "hpo.run.in_process",
    "hpo.run.launch",
    "hpo.run.workbench",
    "hpo.search.botorch_import",
)

PATIENCE_S = 240


class Forks:
    """Runs commands in forks of one process, one after the other.

    Args:
        environment: what the imports see; the commands themselves are given theirs.
    """

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._environment = dict(environment)
        self._server = self._started()

    def _started(self) -> "subprocess.Popen[str]":
        return subprocess.Popen(
            [sys.executable, __file__],
            env=self._environment,
            text=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )

    def run(
        self, command: Sequence[str], directory: Path, environment: Mapping[str, str]
    ) -> "subprocess.CompletedProcess[str]":
        """Run ``hpo`` in a directory and return what it printed and its exit code.

        Raises:
            TimeoutError: it did not end in four minutes, or the process that forks was lost.
        """
        if self._server.poll() is not None:
            self._server = self._started()
        out, errors = directory / ".stdout", directory / ".stderr"
        request = {
            "command": list(command),
            "directory": str(directory),
            "environment": dict(environment),
            "streams": [os.devnull, str(out), str(errors)],
        }
        assert self._server.stdin is not None
        assert self._server.stdout is not None
        late = threading.Timer(PATIENCE_S, os.killpg, (self._server.pid, signal.SIGKILL))
        late.start()
        try:
            self._server.stdin.write(json.dumps(request) + "\n")
            self._server.stdin.flush()
            code = self._server.stdout.readline()
            if not code:
                raise TimeoutError(f"{command} did not end in {PATIENCE_S} s, or its parent was lost")
            return subprocess.CompletedProcess(list(command), int(code), out.read_text(), errors.read_text())
        finally:
            late.cancel()
            out.unlink(missing_ok=True)
            errors.unlink(missing_ok=True)

    def close(self) -> None:
        """End the process that forks."""
        self._server.communicate()


class _Ending:
    """The last call at exit: it ends the process before the interpreter takes thousands of modules apart."""

    code = 0

    def run(self, function: Callable[[], None]) -> None:
        try:
            function()
        except SystemExit as ended:
            self.code = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
            raise
        except BaseException:
            self.code = 1
            raise

    def leave(self) -> None:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(self.code)


def _become(request: dict[str, Any]) -> None:
    """Make this process what it would be, had it been started as the request says."""
    for number, path in enumerate(request["streams"]):
        opened = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600)
        os.dup2(opened, number)
        os.close(opened)
    os.environ.clear()
    os.environ.update(request["environment"])
    os.chdir(request["directory"])
    sys.argv = request["command"]
    sys.path[0] = str(Path(request["command"][0]).parent)


def _serve() -> None:
    ending = _Ending()
    atexit.register(ending.leave)  # before all imports, whose own calls thus come earlier
    for name in IMPORTED:
        importlib.import_module(name)
    gc.freeze()  # what all forks share is not to be looked through, and so copied, in each of them
    # What is forked must not be inside a lock that a thread of ours would have to open.
    assert len(os.listdir("/proc/self/task")) == 1, "a thread was started by an import"
    requests, answers = os.dup(0), os.dup(1)
    os.dup2(os.open(os.devnull, os.O_RDWR), 1)  # what a command inherits must not hold the pipe open
    for line in os.fdopen(requests, closefd=False):
        process = os.fork()
        if process == 0:
            os.close(requests)
            os.close(answers)
            _become(json.loads(line))
            from hpo.cli.main import main

            return ending.run(main)
        _, status = os.waitpid(process, 0)
        os.write(answers, f"{os.waitstatus_to_exitcode(status)}\n".encode())
    return None


if __name__ == "__main__":
    _serve()
