"""What a forked child does to itself before it runs a test."""

import _ctypes
import _signal  # pyright: ignore[reportMissingImports]
import errno
import os
import resource

import harness

PROGRAM = harness.REPORT + 1  # The descriptor of a binary.
_PR_SET_DUMPABLE = 4


def set_dumpable(value: int) -> None:
  """Lets processes of the same user look into this one (1) or not (0)."""
  library = _ctypes.dlopen(None, 0)  # pyright: ignore[reportArgumentType]
  prctl = _ctypes.dlsym(library, 'prctl')
  if _ctypes.call_function(prctl, (_PR_SET_DUMPABLE, value, 0, 0, 0)) != 0:
    raise OSError('prctl(PR_SET_DUMPABLE) failed.')


def limit(limits: dict) -> None:
  """Sets the limits that the kernel itself holds a process to."""
  cpu = limits['cpu_us'] // 1_000_000 + 2  # The watch is exact; this is not.
  stack = min(limits['memory'], 256 << 20)
  for name, value in (
      (resource.RLIMIT_CPU, cpu),
      # Address space is not memory: threads and numpy reserve plenty of it.
      (resource.RLIMIT_AS, 2 * limits['memory'] + (512 << 20)),
      (resource.RLIMIT_FSIZE, limits['output'] + 1),
      (resource.RLIMIT_STACK, stack),
      (resource.RLIMIT_NPROC, limits['processes']),
      # Where no cgroup counts it, a descriptor is kernel memory unseen.
      (resource.RLIMIT_NOFILE, 64 if limits['sum'] else 256),
      (resource.RLIMIT_CORE, 0),
      (resource.RLIMIT_MEMLOCK, 0),
  ):
    hard = resource.getrlimit(name)[1]
    value = value if hard == resource.RLIM_INFINITY else min(value, hard)
    resource.setrlimit(name, (value, value))


def run_binary(argv: tuple[str, ...]) -> None:
  """Becomes the program of descriptor 5, or the command that argv[0] names."""
  for number in (_signal.SIGPIPE, _signal.SIGXFSZ):  # Python ignores them.
    _signal.signal(number, _signal.SIG_DFL)
  try:
    os.execve(argv[0] if argv[0][0] == '/' else PROGRAM, argv, os.environ)
  except OSError as e:
    os.write(2, f'The program cannot be started: {e}'.encode())
    if e.errno in (errno.EACCES, errno.EPERM):
      raise  # By our own walls.
    os._exit(126)
