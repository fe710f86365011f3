"""Starts programs as forks of a process that has imported everything once.

A Python program that uses JAX takes three seconds to import what it needs. Here a server, one for
each test process, imports all of that once, and forks for every program:

    program = forked.start(['-m', 'valley_jax.train', '--config=…'], JAX_NUM_CPU_DEVICES='1')
    assert program.wait() == 0, program.read_output()

A program is a process of its own, with its own arguments, environment and output; it can be killed
like any other. It has a monitor, a fork between server and program, that reports its exit status.
"""

import atexit
import functools
import json
import os
import pathlib
import runpy
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from typing import Any

ROOT = pathlib.Path(__file__).parents[1]
NEVER = 10**9
# Read from the environment when JAX is imported, which the server has done before.
_JAX_OPTIONS = {
    'jax_num_cpu_devices': int,
    'jax_compilation_cache_dir': str,
    'jax_persistent_cache_min_compile_time_secs': float,
}


class Program:
  """A running program; the interface is that of subprocess.Popen."""

  def __init__(self, reports: socket.socket, output: pathlib.Path):
    self._reports = reports.makefile('r')
    reports.close()  # The file keeps it open.
    self._output = output
    self.pid = int(self._reports.readline())
    self.returncode: int | None = None

  def poll(self) -> int | None:
    """Returns the exit status, or None while the program runs; -9 if it was killed."""
    if self.returncode is None and select.select([self._reports], [], [], 0)[0]:
      self.returncode = int(self._reports.readline())
      self._reports.close()
    return self.returncode

  def wait(self, timeout: float = 600) -> int:
    """Returns the exit status."""
    if self.returncode is None:
      select.select([self._reports], [], [], timeout)
      if self.poll() is None:
        self.kill()
        raise TimeoutError(f'Still runs after {timeout} s: {self.read_output()}')
    assert self.returncode is not None
    return self.returncode

  def read_output(self) -> str:
    """Returns what the program has printed, to either stream."""
    return self._output.read_text()

  def send_signal(self, number: int) -> None:
    if self.poll() is None:
      os.kill(self.pid, number)

  def kill(self) -> None:
    self.send_signal(signal.SIGKILL)


def start(command: list[Any], cwd: str | os.PathLike = ROOT, **environ: str) -> Program:
  """Starts a program.

  Args:
    command: Arguments as for `python`: -m MODULE, -c CODE or PATH, and arguments.
    cwd: Working directory.
    **environ: Changes of this process's environment.
  """
  socket_path = _start_server()
  request = {
      'command': [str(word) for word in command],
      'cwd': str(cwd),
      'environ': {**os.environ, 'PYTHONPATH': str(ROOT), **environ},
  }
  handle, path = tempfile.mkstemp(dir=pathlib.Path(socket_path).parent, suffix='.out')
  connection = socket.socket(socket.AF_UNIX)
  connection.connect(socket_path)
  socket.send_fds(connection, [b'!'], [handle])
  os.close(handle)
  connection.sendall(json.dumps(request).encode() + b'\n')
  return Program(connection, pathlib.Path(path))


def start_verb(
    verb: str,
    config: str,
    workdir: str | os.PathLike,
    kill_at: int = NEVER,
    compiled: str | os.PathLike = '',
) -> Program:
  """Starts a verb on one device, to be killed at its n-th file operation; see kill_at.py.

  Args:
    verb: Name of the verb.
    config: Its config, as JSON.
    workdir: Its workdir.
    kill_at: Number of the operation.
    compiled: A directory for compiled code, which later programs find there.
  """
  return start(
      ['-m', 'tests.kill_at', verb, config, workdir, kill_at],
      JAX_NUM_CPU_DEVICES='1',
      JAX_COMPILATION_CACHE_DIR=str(compiled),
      JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS='0',
  )


@functools.cache
def _start_server() -> str:
  """Starts this process's server, which ends with this process; returns the path of its socket."""
  directory = tempfile.mkdtemp(prefix='forked.')
  path = f'{directory}/socket'
  server = subprocess.Popen(
      [sys.executable, '-m', 'tests.forked', path],
      stdin=subprocess.PIPE,  # Its end tells the server to end.
      cwd=ROOT,
      env={**os.environ, 'PYTHONPATH': str(ROOT), 'OPENBLAS_NUM_THREADS': '1'},
  )
  while not os.path.exists(path):
    assert server.poll() is None, 'The fork server has died.'
    time.sleep(0.01)
  atexit.register(_end_server, server, directory)
  return path


def _end_server(server: subprocess.Popen, directory: str) -> None:
  server.communicate()  # Closes its standard input and waits.
  shutil.rmtree(directory)


def _serve(path: str) -> dict[str, Any]:
  """Forks for each request; returns the request, in the fork that is to run the program."""
  listener = socket.socket(socket.AF_UNIX)
  listener.bind(path + '.new')
  listener.listen()
  os.rename(path + '.new', path)
  signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # Monitors leave no zombies.
  while sys.stdin not in (ready := select.select([listener, sys.stdin], [], [])[0]):
    assert listener in ready
    connection = listener.accept()[0]
    if os.fork():
      connection.close()
      continue
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    listener.close()
    _, (output,), _, _ = socket.recv_fds(connection, 1, 1)
    request = json.loads(connection.makefile('r').readline())
    program = os.fork()
    if not program:
      connection.close()
      for stream in (1, 2):
        os.dup2(output, stream)
      os.close(output)
      return request
    connection.sendall(f'{program}\n'.encode())
    status = os.waitstatus_to_exitcode(os.waitpid(program, 0)[1])
    connection.sendall(f'{status}\n'.encode())
    os._exit(0)
  os._exit(0)


def _run_program(request: dict[str, Any]) -> None:
  """Does what `python COMMAND...` does."""
  import jax

  signal.signal(signal.SIGINT, signal.default_int_handler)
  os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
  os.chdir(request['cwd'])
  os.environ.clear()
  os.environ.update(request['environ'])
  for option, convert in _JAX_OPTIONS.items():
    if value := os.environ.get(option.upper()):
      jax.config.update(option, convert(value))
  first, *rest = request['command']
  if first == '-m':
    sys.argv = rest
    # A module that is imported already would otherwise be warned of.
    sys.modules.pop(rest[0], None)
    runpy.run_module(rest[0], run_name='__main__', alter_sys=True)
  elif first == '-c':
    sys.argv = ['-c', *rest[1:]]
    exec(compile(rest[0], '<string>', 'exec'), {'__name__': '__main__'})
  else:
    sys.argv = [first, *rest]
    runpy.run_path(first, run_name='__main__')


def _import_everything() -> None:
  from valley_jax.runtime import metrics
  import valley_jax.study
  import valley_jax.teach  # noqa: F401

  metrics.import_tensorboardx()


if __name__ == '__main__':
  _import_everything()
  _run_program(_serve(sys.argv[1]))
