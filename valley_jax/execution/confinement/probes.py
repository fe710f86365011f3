"""Proves by behaviour, before the first submission, that a sandbox confines.

That bubblewrap is installed says little: a kernel setting, a container or an
old version may leave a wall out. So hostile programs run in a real sandbox and
try the walls. What they get through is an error that names the property, unless
that property was waived by name; then the waiver goes into every judgement.
"""

from collections.abc import Iterable
import itertools
import pathlib
import secrets
import tempfile

from valley_jax import errors
from valley_jax import records
from valley_jax.execution.confinement import isolation as isolation_lib
from valley_jax.execution.confinement import place as place_lib
from valley_jax.execution.confinement import sandbox

PROPERTIES = {
    'files': 'files of the host cannot be read',
    'writes': 'nothing outside the scratch directories can be written',
    'network': 'no socket can be opened',
    'supervisor': 'the supervisor cannot be read, signalled or stopped',
    'privileges': 'there are no capabilities, and there is a seccomp filter',
    'processes': 'the number of processes is limited',
    'survivors': 'no process outlives its test',
    'memory': 'the memory of a test is limited',
    'output': 'the output of a test is limited',
}
_NEEDS_LANDLOCK = 'Landlock and seccomp (Linux 5.13 or newer).'
_NEEDS_NAMESPACES = (
    'unprivileged user namespaces (`sysctl kernel.unprivileged_userns_clone=1`,'
    ' or outside a container that forbids them) and an unmodified bubblewrap.'
)
_LIMITS = records.Limits(cpu_seconds=5.0, memory_mib=96, output_kib=64)
_HOSTILE = """
import os, socket, sys, threading
parent, canaries = os.getppid(), sys.stdin.read().split()
def tries(name, what, action):
  try:
    action()
  except OSError:
    return
  print(name + ':', what)
for canary in canaries:
  tries('files', 'reads ' + canary, lambda: open(canary).read())
tries('network', 'opens a socket', socket.socket)
for path in ('/x', '/usr/x', '/dev/x', '/proc/sys/kernel/hostname',
             '/proc/sys/kernel/core_pattern'):
  where = 'writes to ' + os.path.dirname(path)
  tries('writes', where, lambda: open(path, 'w'))
place = os.path.dirname(canaries[0])  # All may write there, if they see it.
tries('writes', 'writes to ' + place, lambda: open(place + '/x', 'w'))
proc = f'/proc/{parent}/'
tries('supervisor', 'reads its memory', lambda: open(proc + 'mem', 'rb'))
tries('supervisor', 'lists its files', lambda: os.listdir(proc + 'fd'))
for number in (9, 15, 2, 19):
  try: os.kill(parent, number)
  except OSError: pass
import ctypes
get, capget = ctypes.CDLL(None).prctl, ctypes.CDLL(None).capget
sets = ctypes.create_string_buffer(24)
capget((0x20080522).to_bytes(4, sys.byteorder) + bytes(4), sets)
if any(sets.raw):
  print('privileges: has capabilities')
if get(39, 0, 0, 0, 0) != 1:
  print('privileges: may gain new ones')
if get(21, 0, 0, 0, 0) not in (2, -1):
  print('privileges: has no seccomp filter')
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
  print('processes: starts any number')
except OSError:
  pass
print('done')
sys.stdout.flush()
os._exit(0)
"""
_DAEMON = """
import os, time
if os.fork() == 0:
  os.setsid()
  if os.fork() == 0:
    os.closerange(0, 9)
    time.sleep(60)
  os._exit(0)
os.wait()
"""
_GREEDY = """
x = bytearray(160 << 20)
x[::4096] = bytes(len(x[::4096]))
import time; time.sleep(1)
"""
_LOUD = 'while True: print("x" * 999)'


def prove(place: place_lib.Place, waivers: Iterable[str] = ()) -> tuple[str, ...]:
  """Runs the probes; returns the properties that do not hold but are waived.

  Raises:
    IsolationError: a sandbox does not start, or a property does not hold.
    ValueError: a waiver of no property.
  """
  if unknown := set(waivers) - PROPERTIES.keys():
    raise errors.UserError(
        f'Waivers {sorted(unknown)} name no property; properties:' f' {", ".join(PROPERTIES)}.'
    )
  failures = examine(place)
  broken = {name: what for name, what in failures.items() if name not in waivers}
  if broken:
    holes = '; '.join(f'{name} ({what})' for name, what in broken.items())
    raise isolation_lib.IsolationError(
        f'The sandbox of tier {place.isolation.tier} does not confine on this'
        f' machine: {holes}. `python -m valley_jax.execution.probe` shows what'
        ' each tier holds here and what to install; a property can be waived by'
        ' its name, and is then named in every judgement.'
    )
  return tuple(sorted(failures))


def examine(place: place_lib.Place) -> dict[str, str]:
  """Returns the properties that do not hold, each with what got through."""
  try:
    with tempfile.TemporaryDirectory() as directory:
      canary = pathlib.Path(directory) / 'canary'
      canary.write_text(secrets.token_hex(16))
      pathlib.Path(directory).chmod(0o777)
      own = pathlib.Path(__file__).resolve()
      hidden = [str(canary), '/etc/shadow', '/etc/hostname']
      shown = {'/usr', *itertools.chain(*place.isolation.binds)}
      if not any(map(own.is_relative_to, shown)):  # Not beside the interpreter.
        hidden.append(str(own))
      failures = _walls(place, hidden)
    with _box(place, _DAEMON) as box:
      before = box.count_processes()
      box.run(b'')
      if box.count_processes() > before:
        failures['survivors'] = 'a daemon lives on'
    greedy = _run(place, _GREEDY)
    if greedy.stopped is not sandbox.Stop.MEMORY:
      failures['memory'] = f'160 MiB where {_LIMITS.memory_mib} are allowed'
    loud = _run(place, _LOUD)
    if loud.exit_code == 0 or len(loud.stdout) > 65 << 10:
      failures['output'] = f'{len(loud.stdout):,} bytes'
  except sandbox.SandboxError as e:
    needs = _NEEDS_LANDLOCK if place.user else _NEEDS_NAMESPACES
    raise isolation_lib.IsolationError(
        f'The sandbox of tier {place.isolation.tier} does not start here: {e}' f' It needs {needs}'
    ) from e
  return failures


def _walls(place: place_lib.Place, hidden: list[str]) -> dict[str, str]:
  done = _run(place, _HOSTILE, ' '.join(hidden).encode())
  *lines, last = done.stdout.decode('utf-8', 'replace').splitlines() or ['']
  failures: dict[str, str] = {}
  for line in lines:
    name, _, what = line.partition(': ')
    known = name if name in PROPERTIES else 'privileges'
    failures[known] = ', '.join(filter(None, [failures.get(known), what]))
  if last != 'done':  # The walls fell on the program itself.
    words = done.stderr.decode('utf-8', 'replace')[-500:]
    raise sandbox.SandboxError(f'A probe does not run: {words} {done.stopped}')
  return failures


def _box(place: place_lib.Place, source: str) -> sandbox.Sandbox:
  box = sandbox.Sandbox(place, _LIMITS)
  try:
    box.compile((source,), records.Mode.STDIN.value, '')
  except BaseException:
    box.close()
    raise
  return box


def _run(place, source: str, stdin: bytes = b'') -> sandbox.Execution:
  with _box(place, source) as box:
    return box.run(stdin)
