"""What every sandbox of a pool has in common, and which tier a machine offers.

T0  root, bubblewrap, and a cgroup a worker: everything is bounded exactly.
T1  bubblewrap as an ordinary user: memory is summed by the watch.
T2  root in a container that denies namespaces (Colab, Docker): a user id of its
    own a worker, Landlock, seccomp, and the watch. No writable directory.

A tier is taken because the one before is not available here; that it holds is
then proven by `probes.py`.
"""

import dataclasses
import fcntl
import importlib.util
import marshal
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile

from valley_jax import errors
from valley_jax.execution.confinement import seccomp

TIERS = ('T0', 'T1', 'T2')
UNPRIVILEGED_UID = 65534  # nobody
ENVIRONMENT = {
    'HOME': '/tmp',
    'LANG': 'C.UTF-8',
    'OPENBLAS_NUM_THREADS': '1',
    'OMP_NUM_THREADS': '1',
    'PATH': '/usr/bin:/bin',
    # A program's set order, and so its judgement, is the same at every run.
    'PYTHONHASHSEED': '0',
}
_PREFIX = 'valley_jax.'
_BOOT = (
    'import marshal,os,sys\n'
    'for n,c in marshal.loads(os.pread({fd},1<<24,0)):\n'
    '  m=sys.modules[n]=type(sys)(n);exec(c,m.__dict__)'
)
_INSTALL = 'install it with `apt-get install bubblewrap` (or your package manager).'


class IsolationError(errors.UserError):
  """This machine cannot confine programs; the message says what to do."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Isolation:
  """What every sandbox of a pool has in common."""

  tier: str
  bubblewrap: str
  interpreter: str
  binds: tuple[tuple[str, str], ...]  # (where it is, where it is seen).
  seccomp_filter: bytes
  code_fd: int  # A sealed memfd with the code of supervisor.py and its parts.
  uid: int | None  # To become before any start; None: we are not root.
  libraries: str = ''  # Where those of an interpreter that was moved lie.
  public: pathlib.Path  # A directory of this pool that every user can enter.
  waivers: tuple[str, ...] = ()  # Properties that need not hold.

  def close(self) -> None:
    """Releases the descriptor and the directory."""
    os.close(self.code_fd)
    subprocess.run(['rm', '-rf', '--', self.public], check=False)


def prepare(tier: str = '', profile: str = '', waivers: tuple[str, ...] = ()) -> Isolation:
  """Finds out what this machine offers.

  Args:
    tier: The tier to use; empty takes the strongest that is available.
    profile: Of the judgements: lcb_compat needs code of its own inside.
    waivers: Properties without which programs may run all the same.

  Raises:
    IsolationError: none is available, or not the one that was asked for.
  """
  tier = _available(tier)
  interpreter = os.path.realpath(getattr(sys, '_base_executable'))  # noqa: B009
  prefix = os.path.realpath(sys.base_prefix)
  binds = [] if prefix.startswith('/usr') else [(prefix, prefix)]
  _remove_stale()
  public = pathlib.Path(tempfile.mkdtemp(prefix=f'{_PREFIX}{os.getpid()}.'))
  public.chmod(0o711)
  return Isolation(
      tier=tier,
      bubblewrap=shutil.which('bwrap') or '',
      interpreter=interpreter,
      binds=tuple(binds + _numpy_binds()),
      seccomp_filter=seccomp.compile_filter(),
      code_fd=_sealed_code(tier, profile),
      uid=UNPRIVILEGED_UID if os.geteuid() == 0 else None,
      public=public,
      waivers=waivers,
  )


def _remove_stale() -> None:
  """Removes what pools that were killed have left."""
  directories = pathlib.Path(tempfile.gettempdir()).glob(f'{_PREFIX}*')
  stale = [path for path in directories if _is_stale(path)]
  if not stale:
    return
  _end_strays([str(path) for path in stale])
  subprocess.run(['rm', '-rf', '--', *stale], check=False)


def _is_stale(path: pathlib.Path) -> bool:
  pid = path.name.removeprefix(_PREFIX).split('.')[0]
  try:
    is_ours = path.lstat().st_uid == os.geteuid()
  except FileNotFoundError:
    return False  # Its own pool has just removed it.
  return is_ours and not os.path.exists(f'/proc/{pid}')


def _end_strays(directories: list[str]) -> None:
  """Kills what waits for the caller of bubblewrap, and waits for ever.

  It dies with its caller only from the moment when it is told its user id.
  """
  for process in pathlib.Path('/proc').glob('[0-9]*'):
    try:
      fd = os.pidfd_open(int(process.name))
      try:
        command = os.fsdecode((process / 'cmdline').read_bytes())
        if any(f'\0{path}/' in command for path in directories):
          signal.pidfd_send_signal(fd, signal.SIGKILL)
      finally:
        os.close(fd)
    except OSError:
      continue  # It has just ended, or is not ours.


def _numpy_binds() -> list[tuple[str, str]]:
  numpy = importlib.util.find_spec('numpy')
  if numpy is None or not numpy.submodule_search_locations:
    return []
  folder = pathlib.Path(numpy.submodule_search_locations[0])
  if not (folder / '__pycache__').exists():
    # Compiled once, not at each import by those who may not store it.
    quiet = ['-qq', '-x', 'tests', str(folder)]
    command = [sys.executable, '-m', 'compileall', *quiet]
    subprocess.run(command, check=False, stdout=subprocess.DEVNULL)
  return [
      (str((folder.parent / name).resolve()), f'/packages/{name}')
      for name in ('numpy', 'numpy.libs')
      if (folder.parent / name).is_dir()
  ]


def _namespaces_work() -> bool:
  """Whether an ordinary user may make a user namespace here."""
  uid = UNPRIVILEGED_UID if os.geteuid() == 0 else None
  command = ['unshare', '--user', '--map-root-user', '--mount', 'true']
  try:
    done = subprocess.run(command, capture_output=True, check=False, user=uid)
  except (FileNotFoundError, PermissionError):
    return True  # No such command: bubblewrap itself shall tell.
  return done.returncode == 0


def _available(tier: str) -> str:
  """Returns the tier to use, or says what stands in the way of it."""
  if tier not in ('', *TIERS):
    raise IsolationError(
        f'There is no tier {tier!r}; take one of {", ".join(TIERS)}, or leave'
        ' it empty for the strongest that this machine has.'
    )
  is_root = os.geteuid() == 0
  if tier in ('', 'T0', 'T1') and (tier or _namespaces_work()):
    if shutil.which('bwrap') is None:
      raise IsolationError(f'`bwrap` is not on the PATH; {_INSTALL}')
    if tier == 'T0' and not is_root:
      raise IsolationError('Tier T0 needs root; run as root, or take tier T1.')
    return tier or ('T0' if is_root else 'T1')
  if not is_root:
    raise IsolationError(
        'This machine denies user namespaces (a container?), and without root'
        ' no worker can have a user id of its own. Run as root inside the'
        ' container, or allow namespaces:'
        ' `sysctl kernel.unprivileged_userns_clone=1`.'
    )
  return 'T2'


def _sealed_code(tier: str, profile: str) -> int:
  """Compiles what runs inside into a memfd that nobody can change."""
  directory = pathlib.Path(__file__).parents[1] / 'inside'
  names = ['confine'] if tier == 'T2' else []
  names += ['harness', 'lcb_inside'] if profile == 'lcb_compat' else ['harness']
  modules = []
  for name in [*names, 'watch', 'child', 'supervisor']:
    source = (directory / f'{name}.py').read_text(encoding='utf-8')
    modules.append((name, compile(source, f'<{name}>', 'exec', optimize=2)))
  fd = os.memfd_create('supervisor', os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
  os.write(fd, marshal.dumps(modules))
  seals = fcntl.F_SEAL_WRITE | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK
  fcntl.fcntl(fd, fcntl.F_ADD_SEALS, seals | fcntl.F_SEAL_SEAL)
  return fd


def as_user(uid: int) -> list[str]:
  """Returns what to put ahead of a command to run it as another user.

  Not `Popen(user=...)`, which has to fork: with the 800 MiB of a process that
  holds JAX that took 60 ms of CPU time, and this takes 2.
  """
  names = [f'--reuid={uid}', f'--regid={uid}', '--clear-groups']
  return ['setpriv', *names, '--inh-caps=-all', '--']


def boot(isolation: Isolation) -> list[str]:
  """Returns the command that starts the supervisor."""
  # -I but for the hash seed (the environment is empty), and without `site`.
  code = _BOOT.format(fd=isolation.code_fd)
  return [isolation.interpreter, '-s', '-P', '-S', '-c', code]
