"""Proves by behaviour, before the first submission, that a sandbox confines.

An installed bubblewrap says little: a kernel setting, a container or an old version may
leave a wall out. Hostile programs therefore run in a real sandbox and try the walls. A property
that does not hold is an error that names it, unless it was waived by name; then the waiver is
recorded in every judgement.

    python -m valley_jax.execution.probe

shows what this machine can prove. For each tier: whether it is available, which properties hold,
and what to install or allow where they do not. Nothing is changed, nothing is judged.
"""

import argparse
from collections.abc import Iterable
import concurrent.futures
import contextlib
import importlib.util
import itertools
import os
import pathlib
import platform
import secrets
import sys
import tempfile

from valley_jax import errors
from valley_jax import records
from valley_jax.execution import languages
from valley_jax.execution import timing
from valley_jax.execution.confinement import bubblewrap
from valley_jax.execution.confinement import isolation as isolation_lib
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
    'unprivileged user namespaces (`sysctl kernel.unprivileged_userns_clone=1`, or outside a'
    ' container that forbids them) and an unmodified bubblewrap.'
)
_LIMITS = records.Limits(cpu_seconds=5.0, memory_mib=96, output_kib=64)
# Prints a line for each wall that it gets through: property, colon, effect.
_HOSTILE = """
import os, socket, sys, threading
parent, canaries = os.getppid(), sys.stdin.read().split()
def attempt(name, effect, action):
  try:
    action()
  except OSError:
    return
  print(name + ':', effect)
for canary in canaries:
  attempt('files', 'reads ' + canary, lambda: open(canary).read())
attempt('network', 'opens a socket', socket.socket)
for path in ('/x', '/usr/x', '/dev/x', '/proc/sys/kernel/hostname',
             '/proc/sys/kernel/core_pattern'):
  where = 'writes to ' + os.path.dirname(path)
  attempt('writes', where, lambda: open(path, 'w'))
folder = os.path.dirname(canaries[0])  # All may write there, if they see it.
attempt('writes', 'writes to ' + folder, lambda: open(folder + '/x', 'w'))
proc = f'/proc/{parent}/'
attempt('supervisor', 'reads its memory', lambda: open(proc + 'mem', 'rb'))
attempt('supervisor', 'lists its files', lambda: os.listdir(proc + 'fd'))
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


def prove_confinement(
    confinement: isolation_lib.Confinement, waivers: Iterable[str] = ()
) -> tuple[str, ...]:
  """Runs the probes; returns the properties that do not hold but are waived.

  Raises:
    IsolationError: a sandbox does not start, or a property does not hold.
    UserError: a waiver names no property.
  """
  if unknown := set(waivers) - PROPERTIES.keys():
    raise errors.UserError(
        f'Waivers {sorted(unknown)} name no property; properties: {", ".join(PROPERTIES)}.'
    )
  failures = find_failures(confinement)
  broken = {name: effect for name, effect in failures.items() if name not in waivers}
  if broken:
    holes = '; '.join(f'{name} ({effect})' for name, effect in broken.items())
    raise isolation_lib.IsolationError(
        f'The sandbox of tier {confinement.isolation.tier} does not confine on this machine:'
        f' {holes}. `python -m valley_jax.execution.probe` shows which properties each tier holds'
        ' here and what to install; a property can be waived by its name, which is then recorded'
        ' in every judgement.'
    )
  return tuple(sorted(failures))


def find_failures(confinement: isolation_lib.Confinement) -> dict[str, str]:
  """Returns the properties that do not hold, each with what got through."""
  try:
    with tempfile.TemporaryDirectory() as directory:
      canary = pathlib.Path(directory) / 'canary'
      canary.write_text(secrets.token_hex(16))
      pathlib.Path(directory).chmod(0o777)  # Only the sandbox may hide the canary.
      own = pathlib.Path(__file__).resolve()
      hidden = [str(canary), '/etc/shadow', '/etc/hostname']
      visible = {'/usr', *itertools.chain(*confinement.isolation.binds)}
      if not any(map(own.is_relative_to, visible)):  # Not installed with the interpreter.
        hidden.append(str(own))
      failures = _try_walls(confinement, hidden)
    with _load_probe(confinement, _DAEMON) as box:
      before = count_descendants(box.pid)
      box.run_test(b'')
      if count_descendants(box.pid) > before:
        failures['survivors'] = 'a daemon lives on'
    greedy = _run_probe(confinement, _GREEDY)
    if greedy.stopped is not sandbox.StopReason.MEMORY:
      failures['memory'] = f'160 MiB where {_LIMITS.memory_mib} are allowed'
    loud = _run_probe(confinement, _LOUD)
    # A little over the limit of 64 KiB, as a write may end beyond it.
    if loud.exit_code == 0 or len(loud.stdout) > 65 << 10:
      failures['output'] = f'{len(loud.stdout):,} bytes'
  except sandbox.SandboxError as e:
    needs = _NEEDS_LANDLOCK if confinement.user else _NEEDS_NAMESPACES
    raise isolation_lib.IsolationError(
        f'The sandbox of tier {confinement.isolation.tier} does not start here: {e} It needs'
        f' {needs}'
    ) from e
  return failures


def _try_walls(confinement: isolation_lib.Confinement, hidden: list[str]) -> dict[str, str]:
  execution = _run_probe(confinement, _HOSTILE, ' '.join(hidden).encode())
  # The last line proves that the probe has finished.
  *lines, last = execution.stdout.decode('utf-8', 'replace').splitlines() or ['']
  failures: dict[str, str] = {}
  for line in lines:
    name, _, effect = line.partition(': ')
    known = name if name in PROPERTIES else 'privileges'
    failures[known] = ', '.join(filter(None, [failures.get(known), effect]))
  if last != 'done':  # The walls have ended the probe itself.
    stderr = execution.stderr.decode('utf-8', 'replace')[-500:]
    raise sandbox.SandboxError(f'A probe does not run: {stderr} {execution.stopped}')
  return failures


def _load_probe(confinement: isolation_lib.Confinement, source: str) -> sandbox.Sandbox:
  box = sandbox.Sandbox(confinement, _LIMITS)
  try:
    box.compile_python((source,), records.Mode.STDIN.value, '')
  except BaseException:
    box.close()
    raise
  return box


def _run_probe(confinement, source: str, stdin: bytes = b'') -> sandbox.Execution:
  with _load_probe(confinement, source) as box:
    return box.run_test(stdin)


def count_descendants(root: int) -> int:
  """Returns how many processes descend from a process of ours."""
  parents = {}
  for stat in pathlib.Path('/proc').glob('[0-9]*/stat'):
    try:
      fields = stat.read_text().rpartition(')')[2].split()
    except OSError:
      continue  # It has just ended.
    parents[int(stat.parent.name)] = int(fields[1])
  number, level = 0, {root}
  while level := {pid for pid, parent in parents.items() if parent in level}:
    number += len(level)
  return number


def _examine_tier(tier: str) -> dict[str, str] | str:
  """Returns the failures of a tier, or why it is not available."""
  try:
    with contextlib.closing(isolation_lib.prepare_isolation(tier)) as isolation:
      exposed = bubblewrap.expose_binds(isolation)
      with contextlib.closing(isolation_lib.create_confinement(exposed, 0)) as confinement:
        return find_failures(confinement)
  except isolation_lib.IsolationError as e:
    return str(e)


def _examine_in_thread(tier: str) -> dict[str, str] | str:
  """Examines in a thread of its own, whose mount namespace ends with it."""
  with concurrent.futures.ThreadPoolExecutor(1) as executor:
    return executor.submit(_examine_tier, tier).result()


def _print_tier(tier: str, failures: dict[str, str] | str) -> bool:
  """Prints the properties of a tier; returns whether all hold."""
  if isinstance(failures, str):
    print(f'\n{tier}: not available. {failures}')
    return False
  print(f'\n{tier}: {"has holes" if failures else "holds"}')
  for name, meaning in PROPERTIES.items():
    sign = '  no ' if name in failures else '  yes'
    print(f'{sign} {name:<11} {failures.get(name) or meaning}')
  return not failures


def main() -> int:
  """Prints the report; exit status 1 if no tier holds."""
  parser = argparse.ArgumentParser(
      prog='python -m valley_jax.execution.probe',
      description=__doc__,
      formatter_class=argparse.RawDescriptionHelpFormatter,
  )
  parser.parse_args()
  cores = len(os.sched_getaffinity(0))
  print(f'Linux {platform.release()}, {platform.machine()}, {cores} cores')
  print(f'Calibration: {timing.time_reference_loop() * 1e3:.1f} CPU-ms a reference loop')
  for name, language in languages.LANGUAGES.items():
    version = languages.find_compiler_version(language)
    if not language.compiler:
      numpy = 'with' if importlib.util.find_spec('numpy') else 'without'
      version = f'{sys.version.split()[0]}, {numpy} numpy'
    missing = f'no {"".join(language.compiler[:1])}; `apt-get install g++`'
    print(f'{name:<8} {version or missing}')
  holding = [tier for tier in isolation_lib.TIERS if _print_tier(tier, _examine_in_thread(tier))]
  print(f'\nexecute takes {holding[0]} here.' if holding else '\nNo tier holds here.')
  return 0 if holding else 1


if __name__ == '__main__':
  sys.exit(main())
