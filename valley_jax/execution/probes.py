"""Proves by behaviour, before the first submission, that a sandbox confines.

That bubblewrap is installed says little: a kernel setting, a container or an
old version may leave a wall out. So a hostile program runs in a real sandbox
and tries the walls; whatever it gets through is an error that names the wall.
"""

import pathlib
import secrets
import tempfile

from valley_jax import records
from valley_jax.execution import cgroups
from valley_jax.execution import isolation as isolation_lib
from valley_jax.execution import sandbox

_LIMITS = records.Limits(cpu_seconds=5.0, memory_mib=96, output_kib=64)
_HOSTILE = """
import os, socket, sys, threading
canaries = sys.stdin.read().split()
def tries(name, action):
  try:
    action()
  except OSError:
    return
  print(name)
for canary in canaries:
  tries('reads a file of the host', lambda: open(canary).read())
tries('opens a socket', socket.socket)
for path in ('/x', '/usr/x', '/dev/x', '/proc/sys/kernel/hostname',
             '/proc/sys/kernel/core_pattern'):
  tries('writes to ' + os.path.dirname(path), lambda: open(path, 'w'))
tries("reads the supervisor's memory", lambda: open('/proc/1/mem', 'rb'))
tries("lists the supervisor's files", lambda: os.listdir('/proc/1/fd'))
for number in (9, 15, 2, 19):
  os.kill(1, number)
status = open('/proc/self/status').read()
for field, wanted in (('CapPrm', 0), ('CapBnd', 0), ('NoNewPrivs', 1),
                      ('Seccomp', 2)):
  value = int(status.split(field + ':')[1].split()[0], 16)
  if value != wanted:
    print('has', field, value)
thread = threading.Thread(target=lambda: None)
thread.start(); thread.join()
children = []
try:
  while len(children) < 200:
    child = os.fork()
    if child == 0:
      while True:
        os.read(os.pipe()[0], 1)
    children.append(child)
  print('starts any number of processes')
except OSError:
  pass
print('done')
sys.stdout.flush()
os._exit(0)
"""
_GREEDY = 'x = bytearray(160 << 20)\nx[::4096] = bytes(len(x[::4096]))\n'
_GREEDY += 'import time; time.sleep(1)\n'


def prove(
    isolation: isolation_lib.Isolation, cgroup: cgroups.Cgroup | None
) -> None:
  """Runs the probes.

  Raises:
    IsolationError: bubblewrap does not start, or a wall does not hold.
  """
  with tempfile.TemporaryDirectory() as directory:
    canary = pathlib.Path(directory) / 'canary'
    canary.write_text(secrets.token_hex(16))
    own = pathlib.Path(__file__).resolve()
    hidden = '\n'.join([str(canary), str(own), '/etc/shadow', '/etc/hostname'])
    walls = _run(isolation, cgroup, _HOSTILE, hidden.encode())
  printed = walls.stdout.decode('utf-8', 'replace').splitlines()
  if printed != ['done']:
    words = walls.stderr.decode('utf-8', 'replace')[-500:]
    words += f' ({walls.stopped})' if walls.stopped else ''
    raise isolation_lib.IsolationError(
        'The sandbox does not confine on this machine: a program in it'
        f' {"; ".join(printed) or "does not run"}. {words}'.strip()
        + ' Run on a kernel with user namespaces and seccomp, and with an'
        ' unmodified bubblewrap (`apt-get install bubblewrap`).'
    )
  memory = _run(isolation, cgroup, _GREEDY, b'')
  if memory.stopped is not sandbox.Stop.MEMORY:
    raise isolation_lib.IsolationError(
        f'A program may use 160 MiB where {_LIMITS.memory_mib} are allowed'
        f' (exit status {memory.exit_code}); judge on a machine with memory'
        ' cgroups or a readable /proc.'
    )


def _run(isolation, cgroup, source: str, stdin: bytes) -> sandbox.Execution:
  try:
    with sandbox.Sandbox(isolation, cgroup, _LIMITS) as box:
      box.compile((source,), records.Mode.STDIN, '')
      return box.run(stdin)
  except sandbox.SandboxError as e:
    raise isolation_lib.IsolationError(
        f'bubblewrap does not start here: {e} It needs unprivileged user'
        ' namespaces (`sysctl kernel.unprivileged_userns_clone=1`, or outside'
        ' a container that forbids them).'
    ) from e
