"""What every sandbox of a pool has in common, and which tier a machine offers.

T0  root, bubblewrap, and a cgroup per worker: everything is bounded exactly.
T1  bubblewrap as an ordinary user: memory is summed by the monitor.
T2  root in a container that denies namespaces (Colab, Docker): a user id of its own for each
    worker, Landlock, seccomp, and the monitor. No writable directory.

A tier is used because the one before is not available here; that it holds is then proven by
`probe.py`.
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
from valley_jax.execution.confinement import cgroups
from valley_jax.execution.confinement import container
from valley_jax.execution.confinement import seccomp

TIERS = ('T0', 'T1', 'T2')
UNPRIVILEGED_UID = 65534  # nobody
ENVIRONMENT = {
    'HOME': '/tmp',
    'LANG': 'C.UTF-8',
    'OPENBLAS_NUM_THREADS': '1',
    'OMP_NUM_THREADS': '1',
    'PATH': '/usr/bin:/bin',
    # A program's set order, and so its judgement, is the same in every run.
    'PYTHONHASHSEED': '0',
}
_PREFIX = 'valley_jax.'
# Loads the modules of `_seal_inside_code` in their order; the last is the supervisor, which runs.
_BOOT = (
    'import marshal,os,sys\n'
    'for n,c in marshal.loads(os.pread({fd},1<<24,0)):\n'
    '  m=sys.modules[n]=type(sys)(n);exec(c,m.__dict__)'
)
_INSTALL = 'install it with `apt-get install bubblewrap` (or your package manager).'


class IsolationError(errors.UserError):
  """This machine cannot confine programs; the message names the remedy."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Isolation:
  """What every sandbox of a pool has in common."""

  tier: str
  bubblewrap: str
  interpreter: str
  binds: tuple[tuple[str, str], ...]  # (path on the host, path inside).
  seccomp_filter: bytes
  code_fd: int  # A sealed memfd with the code of supervisor.py and its parts.
  uid: int | None  # The user to become before any start; None: we are not root.
  libraries: str = ''  # Directory of the libraries of an interpreter that was moved.
  public: pathlib.Path  # A directory of this pool that every user can enter.
  waivers: tuple[str, ...] = ()  # Properties that need not hold.

  def close(self) -> None:
    """Releases the descriptor and the directory."""
    os.close(self.code_fd)
    subprocess.run(['rm', '-rf', '--', self.public], check=False)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Confinement:
  """What confines the sandboxes of one worker, in addition to the sandbox itself."""

  isolation: Isolation
  cgroup: cgroups.Cgroup | None = None  # In T0.
  user: container.PrivateUser | None = None  # In T2.

  def close(self) -> None:
    """Removes the cgroup, gives the user id back."""
    if self.cgroup:
      self.cgroup.remove()
    if self.user:
      self.user.close()


def create_confinement(isolation: Isolation, number: int) -> Confinement:
  """Creates what the tier needs for one worker.

  Args:
    isolation: Isolation of the pool, exposed to the calling thread (`bubblewrap.expose_binds`).
    number: Number of the worker; each in a pool has another.

  Raises:
    IsolationError: the tier is not available after all.
  """
  if isolation.tier == 'T2':
    user = container.claim_user()
    if user is None:
      raise IsolationError(
          f'All user ids from {container.FIRST_UID:,} on are in use; end other judges.'
      )
    return Confinement(isolation=isolation, user=user)
  cgroup = cgroups.create_cgroup(number) if isolation.tier == 'T0' else None
  if isolation.tier == 'T0' and cgroup is None:
    raise IsolationError(
        'Tier T0 needs a memory and a pids cgroup, and none can be made below /sys/fs/cgroup (is it'
        ' mounted read-only?). Mount it writable, or use tier T1.'
    )
  return Confinement(isolation=isolation, cgroup=cgroup)


def prepare_isolation(
    tier: str = '', profile: str = '', waivers: tuple[str, ...] = ()
) -> Isolation:
  """Finds out what this machine offers.

  Args:
    tier: The tier to use; '' takes the strongest that is available.
    profile: Profile of the judgements: lcb_compat needs code of its own inside.
    waivers: Properties without which programs may run all the same.

  Raises:
    IsolationError: no tier is available, or not the requested one.
  """
  tier = _choose_tier(tier)
  # Not the virtual environment's, whose packages programs would see.
  interpreter = os.path.realpath(getattr(sys, '_base_executable'))  # noqa: B009
  prefix = os.path.realpath(sys.base_prefix)
  binds = [] if prefix.startswith('/usr') else [(prefix, prefix)]
  _remove_stale_pools()
  public = pathlib.Path(tempfile.mkdtemp(prefix=f'{_PREFIX}{os.getpid()}.'))
  public.chmod(0o711)
  return Isolation(
      tier=tier,
      bubblewrap=shutil.which('bwrap') or '',
      interpreter=interpreter,
      binds=tuple(binds + _find_numpy_binds()),
      seccomp_filter=seccomp.compile_filter(),
      code_fd=_seal_inside_code(tier, profile),
      uid=UNPRIVILEGED_UID if os.geteuid() == 0 else None,
      public=public,
      waivers=waivers,
  )


def _remove_stale_pools() -> None:
  """Removes what pools that were killed have left."""
  directories = pathlib.Path(tempfile.gettempdir()).glob(f'{_PREFIX}*')
  stale = [path for path in directories if _is_stale(path)]
  if not stale:
    return
  _kill_waiting_bubblewraps([str(path) for path in stale])
  subprocess.run(['rm', '-rf', '--', *stale], check=False)


def _is_stale(path: pathlib.Path) -> bool:
  pid = path.name.removeprefix(_PREFIX).split('.')[0]
  try:
    is_ours = path.lstat().st_uid == os.geteuid()
  except FileNotFoundError:
    return False  # Its own pool has just removed it.
  return is_ours and not os.path.exists(f'/proc/{pid}')


def _kill_waiting_bubblewraps(directories: list[str]) -> None:
  """Kills bubblewraps that would wait for ever for their dead caller.

  A bubblewrap dies with its caller only once it has been told its user id.
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


def _find_numpy_binds() -> list[tuple[str, str]]:
  numpy = importlib.util.find_spec('numpy')
  if numpy is None or not numpy.submodule_search_locations:
    return []
  folder = pathlib.Path(numpy.submodule_search_locations[0])
  if not (folder / '__pycache__').exists():
    # Once, not at each import inside, where the result cannot be stored.
    options = ['-qq', '-x', 'tests', str(folder)]
    command = [sys.executable, '-m', 'compileall', *options]
    subprocess.run(command, check=False, stdout=subprocess.DEVNULL)
  return [
      (str((folder.parent / name).resolve()), f'/packages/{name}')
      for name in ('numpy', 'numpy.libs')
      if (folder.parent / name).is_dir()
  ]


def _can_make_namespaces() -> bool:
  """Returns whether an ordinary user may make a user namespace here."""
  uid = UNPRIVILEGED_UID if os.geteuid() == 0 else None
  command = ['unshare', '--user', '--map-root-user', '--mount', 'true']
  try:
    done = subprocess.run(command, capture_output=True, check=False, user=uid)
  except (FileNotFoundError, PermissionError):
    return True  # No such command: bubblewrap itself will tell.
  return done.returncode == 0


def _choose_tier(tier: str) -> str:
  """Returns the tier to use, or raises an IsolationError that names what it lacks."""
  if tier not in ('', *TIERS):
    raise IsolationError(
        f'There is no tier {tier!r}; use one of {", ".join(TIERS)}, or leave it empty for the'
        ' strongest that this machine has.'
    )
  is_root = os.geteuid() == 0
  if tier in ('', 'T0', 'T1') and (tier or _can_make_namespaces()):
    if shutil.which('bwrap') is None:
      raise IsolationError(f'`bwrap` is not on the PATH; {_INSTALL}')
    if tier == 'T0' and not is_root:
      raise IsolationError('Tier T0 needs root; run as root, or use tier T1.')
    return tier or ('T0' if is_root else 'T1')
  if not is_root:
    raise IsolationError(
        'This machine denies user namespaces (a container?), and without root no worker can have a'
        ' user id of its own. Run as root inside the container, or allow namespaces:'
        ' `sysctl kernel.unprivileged_userns_clone=1`.'
    )
  return 'T2'


def _seal_inside_code(tier: str, profile: str) -> int:
  """Compiles the code that runs inside into a memfd that nobody can change."""
  directory = pathlib.Path(__file__).parents[1] / 'inside'
  names = ['confine'] if tier == 'T2' else []
  names += ['harness', 'lcb_inside'] if profile == 'lcb_compat' else ['harness']
  modules = []
  for name in [*names, 'monitor', 'plain_values', 'supervisor']:
    source = (directory / f'{name}.py').read_text(encoding='utf-8')
    modules.append((name, compile(source, f'<{name}>', 'exec', optimize=2)))
  fd = os.memfd_create('supervisor', os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
  os.write(fd, marshal.dumps(modules))
  seals = fcntl.F_SEAL_WRITE | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK
  fcntl.fcntl(fd, fcntl.F_ADD_SEALS, seals | fcntl.F_SEAL_SEAL)
  return fd


def build_user_switch(uid: int) -> list[str]:
  """Returns the words to put before a command to run it as another user.

  Not `Popen(user=...)`, which has to fork: with the 800 MiB of a process that holds JAX that took
  60 ms of CPU time, and this takes 2.
  """
  names = [f'--reuid={uid}', f'--regid={uid}', '--clear-groups']
  return ['setpriv', *names, '--inh-caps=-all', '--']


def build_boot_command(isolation: Isolation) -> list[str]:
  """Returns the command that starts the supervisor."""
  # As -I, but with the hash seed (there is no other variable of Python), and without `site`.
  code = _BOOT.format(fd=isolation.code_fd)
  return [isolation.interpreter, '-s', '-P', '-S', '-c', code]
