"""Walls that a process builds around itself where namespaces are denied (T2).

Runs inside, as part of the supervisor and of each test's child. Landlock says which files can be
reached, and (from ABI 6 on) that no signal leaves; the seccomp filters come from the host, which
has libseccomp. What a namespace would hide, processes of other users for instance, stays visible
here, but with a user id of its own and these walls a program can do nothing to it.
"""

import ctypes
import os
import stat
import struct

# Numbers of system calls, and constants of <linux/landlock.h> and <linux/prctl.h>.
_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR, _TRUNCATE = 1, 2, 4, 8, 1 << 14
_RIGHTS_OF_ABI_1 = (1 << 13) - 1
READ = EXECUTE | _READ_FILE | _READ_DIR
WRITE = READ | _RIGHTS_OF_ABI_1
DEVICE = _READ_FILE | _WRITE_FILE
_RIGHTS_TO_FILES = EXECUTE | _WRITE_FILE | _READ_FILE | _TRUNCATE
_SCOPES = 3  # No signal and no abstract socket to anyone outside.
_PR_SET_NO_NEW_PRIVS, _PR_SET_SECCOMP, _MODE_FILTER = 38, 22, 2
_PR_SET_CHILD_SUBREAPER = 36
_libc = ctypes.CDLL(None, use_errno=True)


def _check_call(result: int, call: str) -> int:
  if result < 0:
    raise OSError(ctypes.get_errno(), call)
  return result


def _call_prctl(option: int, *args) -> None:
  values = [ctypes.c_ulong(value) for value in (*args, 0, 0, 0, 0)[:4]]
  _check_call(_libc.prctl(option, *values), f'prctl({option})')


def adopt_orphans() -> None:
  """Makes this process the parent of its orphaned descendants."""
  _call_prctl(_PR_SET_CHILD_SUBREAPER, 1)


def install_filter(program: bytes) -> None:
  """Installs a seccomp filter, for good."""
  _call_prctl(_PR_SET_NO_NEW_PRIVS, 1)
  code = ctypes.create_string_buffer(program, len(program))
  length = len(program) // 8
  header = struct.pack('HxxxxxxP', length, ctypes.addressof(code))
  buffer = ctypes.create_string_buffer(header, len(header))
  _call_prctl(_PR_SET_SECCOMP, _MODE_FILTER, ctypes.addressof(buffer))


def restrict_files(rules: list[tuple[str, int]], is_required: bool) -> None:
  """Leaves only these paths, each with its rights.

  Raises:
    OSError: the kernel has no Landlock, and it is required: nobody has waived the properties that
      only Landlock can hold.
  """
  abi = _libc.syscall(_CREATE_RULESET, None, 0, 1)
  if abi < 0 and not is_required:
    return
  _check_call(abi, 'landlock')
  handled = _RIGHTS_OF_ABI_1
  handled |= (1 << 13 if abi >= 2 else 0) | (_TRUNCATE if abi >= 3 else 0)
  scoped = _SCOPES if abi >= 6 else 0
  size = 8 if abi < 4 else 16 if abi < 6 else 24  # An older kernel refuses a longer struct.
  ruleset = struct.pack('QQQ', handled, 0, scoped)[:size]
  _call_prctl(_PR_SET_NO_NEW_PRIVS, 1)
  fd = _check_call(_libc.syscall(_CREATE_RULESET, ruleset, size, 0), 'landlock')
  for path, rights in rules:
    try:
      target = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
      continue  # What is not there needs no right.
    if rights & _WRITE_FILE:
      rights |= _TRUNCATE & handled
    if not stat.S_ISDIR(os.fstat(target).st_mode):
      rights &= _RIGHTS_TO_FILES  # Rights to directories would be refused.
    rule = struct.pack('=Qi', rights, target)
    _check_call(_libc.syscall(_ADD_RULE, fd, 1, rule, 0), f'landlock rule {path}')
    os.close(target)
  _check_call(_libc.syscall(_RESTRICT_SELF, fd, 0), 'landlock_restrict_self')
  os.close(fd)
