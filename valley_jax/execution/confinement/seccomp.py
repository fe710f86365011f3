"""The system calls that no program under judgement may make.

A namespace hides things; this filter takes away the means of asking for them. It is a list of
refusals (EPERM) over an open default, because programs and libc versions use calls that nobody
can list, whereas the dangerous ones are few and named. Three traps shaped it:

* a network namespace does not cover AF_VSOCK, so `socket` itself is refused; `socketpair` stays,
  except for datagrams, which can be sent to anybody;
* `clone3` hides its flags behind a pointer that a filter cannot follow: it answers ENOSYS, upon
  which libc falls back to `clone`, whose flags the filter can see;
* `prlimit` and its kin act on other processes of the same user, and so on the supervisor: they
  are allowed for the caller itself (pid 0) only.
"""

import errno
import os
import socket

import pyseccomp

# Refused whatever their arguments. Memory that no process maps (memfd, System V segments, huge
# pages in a pipe) would escape the accounting; queues and segments would outlive the test; what
# all users share (asynchronous I/O, `sync`) must not be used up by one.
_REFUSED_CALLS = """
acct add_key bind bpf chroot connect delete_module fanotify_init finit_module
fsconfig fsmount fsopen fspick init_module inotify_init inotify_init1 io_setup
io_uring_enter io_uring_register io_uring_setup ioperm iopl kcmp kexec_file_load
kexec_load keyctl listen lookup_dcookie memfd_create memfd_secret mount
mount_setattr move_mount mq_open mq_timedsend mq_unlink msgctl msgget msgrcv
msgsnd name_to_handle_at nfsservctl open_by_handle_at open_tree perf_event_open
pidfd_getfd pivot_root process_madvise process_vm_readv process_vm_writev ptrace
quotactl quotactl_fd reboot request_key sched_setaffinity semctl semget semop
semtimedop setdomainname sethostname setns shmat shmctl shmdt shmget socket
swapoff swapon sync syncfs syslog umount umount2 unshare userfaultfd vhangup
vmsplice
""".split()
# Calls whose argument of this index must be 0, that is the caller itself.
_SELF_ONLY_CALLS = {
    'ioprio_set': 1,
    'migrate_pages': 0,
    'move_pages': 0,
    'prlimit64': 0,
    'sched_setattr': 0,
    'sched_setparam': 0,
    'sched_setscheduler': 0,
    'setpriority': 1,
}
_NEW_NAMESPACES = (
    0x00020000,  # CLONE_NEWNS
    0x02000000,  # CLONE_NEWCGROUP
    0x04000000,  # CLONE_NEWUTS
    0x08000000,  # CLONE_NEWIPC
    0x10000000,  # CLONE_NEWUSER
    0x20000000,  # CLONE_NEWPID
    0x40000000,  # CLONE_NEWNET
    0x00000080,  # CLONE_NEWTIME
)
_INT = 0xFFFFFFFF  # An `int` is masked: the kernel looks at its lower half.
# Calls whose argument of this index, under this mask, must not be one of these.
_REFUSED_ARGUMENTS = (
    ('clone', 0, None, _NEW_NAMESPACES),
    ('socketpair', 1, 0xF, (socket.SOCK_DGRAM, socket.SOCK_RAW)),
    # TIOCSTI, TIOCLINUX; FIOSETOWN, SIOCSPGRP: they make others be signalled.
    ('ioctl', 1, _INT, (0x5412, 0x541C, 0x8901, 0x8902)),
    ('fcntl', 1, _INT, (8, 10, 15)),  # F_SETOWN, F_SETSIG, F_SETOWN_EX.
    # PRIO_USER, IOPRIO_WHO_USER: every process of the caller's user.
    ('setpriority', 0, _INT, (2,)),
    ('ioprio_set', 0, _INT, (3,)),
)
_PR_SET_DUMPABLE = 4


def compile_filter() -> bytes:
  """Returns the BPF program that bubblewrap's `--seccomp` installs."""
  rules = pyseccomp.SyscallFilter(pyseccomp.ALLOW)
  refusal = pyseccomp.ERRNO(errno.EPERM)

  def add_rule(action: int, name: str, *arguments: pyseccomp.Arg) -> None:
    # An older libseccomp, or this architecture, may lack a call.
    if pyseccomp.resolve_syscall(pyseccomp.Arch.NATIVE, name) >= 0:
      rules.add_rule(action, name, *arguments)

  for name in _REFUSED_CALLS:
    add_rule(refusal, name)
  for name, index in _SELF_ONLY_CALLS.items():
    add_rule(refusal, name, pyseccomp.Arg(index, pyseccomp.NE, 0))
  add_rule(refusal, 'socketpair', pyseccomp.Arg(0, pyseccomp.NE, socket.AF_UNIX))
  for name, index, mask, values in _REFUSED_ARGUMENTS:
    for value in values:  # Without a mask the value is a flag, and its own mask.
      argument = pyseccomp.Arg(index, pyseccomp.MASKED_EQ, mask or value, value)
      add_rule(refusal, name, argument)
  add_rule(pyseccomp.ERRNO(errno.ENOSYS), 'clone3')
  return _export_bpf(rules)


def compile_guard(supervisor: int) -> bytes:
  """Returns what a test in T2 must not do to the supervisor, which has the same user.

  Refused are signals to it, to its group and to everybody, and becoming invisible to its monitor.
  """
  rules = pyseccomp.SyscallFilter(pyseccomp.ALLOW)
  refusal = pyseccomp.ERRNO(errno.EPERM)
  for pid in (supervisor, -supervisor, -1):
    target = pyseccomp.Arg(0, pyseccomp.MASKED_EQ, _INT, pid & _INT)
    for name in ('kill', 'tkill', 'tgkill', 'rt_sigqueueinfo', 'rt_tgsigqueueinfo'):
      rules.add_rule(refusal, name, target)
  rules.add_rule(refusal, 'pidfd_send_signal')
  undumpable = pyseccomp.Arg(0, pyseccomp.MASKED_EQ, _INT, _PR_SET_DUMPABLE)
  rules.add_rule(refusal, 'prctl', undumpable)
  return _export_bpf(rules)


def _export_bpf(rules: pyseccomp.SyscallFilter) -> bytes:
  reader, writer = os.pipe()
  with open(reader, 'rb') as source, open(writer, 'wb') as target:
    rules.export_bpf(target)
    target.close()
    return source.read()
