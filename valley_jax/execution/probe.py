"""Shows what this machine can prove: `python -m valley_jax.execution.probe`.

For each tier: whether it is there, which properties hold, and what to install
or allow where they do not. Nothing is changed, nothing is judged.
"""

import argparse
import concurrent.futures
import contextlib
import importlib.util
import os
import platform
import sys

from valley_jax.execution import calibration
from valley_jax.execution import languages
from valley_jax.execution.confinement import bubblewrap
from valley_jax.execution.confinement import isolation as isolation_lib
from valley_jax.execution.confinement import place as place_lib
from valley_jax.execution.confinement import probes


def _examine(tier: str) -> dict[str, str] | str:
  """Returns what does not hold in a tier, or why the tier is not there."""
  try:
    with contextlib.closing(isolation_lib.prepare(tier)) as isolation:
      staged = bubblewrap.stage(isolation)
      with contextlib.closing(place_lib.take(staged, 0)) as place:
        return probes.examine(place)
  except isolation_lib.IsolationError as e:
    return str(e)


def _in_thread(tier: str) -> dict[str, str] | str:
  """Examines in a thread of its own, whose mount namespace ends with it."""
  with concurrent.futures.ThreadPoolExecutor(1) as executor:
    return executor.submit(_examine, tier).result()


def _show(tier: str, found: dict[str, str] | str) -> bool:
  if isinstance(found, str):
    print(f'\n{tier}: not available. {found}')
    return False
  print(f'\n{tier}: {"has holes" if found else "holds"}')
  for name, meaning in probes.PROPERTIES.items():
    sign = '  no ' if name in found else '  yes'
    print(f'{sign} {name:<11} {found.get(name) or meaning}')
  return not found


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
  loop = calibration.measure() * 1e3
  print(f'Calibration: {loop:.1f} CPU-ms a reference loop')
  for name, language in languages.LANGUAGES.items():
    version = languages.compiler_version(language)
    if not language.compiler:
      numpy = 'with' if importlib.util.find_spec('numpy') else 'without'
      version = f'{sys.version.split()[0]}, {numpy} numpy'
    missing = f'no {"".join(language.compiler[:1])}; `apt-get install g++`'
    print(f'{name:<8} {version or missing}')
  held = [t for t in isolation_lib.TIERS if _show(t, _in_thread(t))]
  print(f'\nexecute takes {held[0]} here.' if held else '\nNo tier holds here.')
  return 0 if held else 1


if __name__ == '__main__':
  sys.exit(main())
