"""Where a worker's sandboxes stand: what its tier needs beside the sandbox."""

import dataclasses

from valley_jax.execution.confinement import cgroups
from valley_jax.execution.confinement import container
from valley_jax.execution.confinement import isolation as isolation_lib


@dataclasses.dataclass(frozen=True, kw_only=True)
class Place:
  """Where a worker's sandboxes stand."""

  isolation: isolation_lib.Isolation
  cgroup: cgroups.Cgroup | None = None  # T0
  user: container.User | None = None  # T2

  def close(self) -> None:
    """Removes what was made for it."""
    if self.cgroup:
      self.cgroup.remove()
    if self.user:
      self.user.close()


def take(isolation: isolation_lib.Isolation, number: int) -> Place:
  """Makes a place; `isolation` has been staged for the calling thread.

  Raises:
    IsolationError: the tier is not to be had after all.
  """
  if isolation.tier == 'T2':
    return Place(isolation=isolation, user=container.User())
  cgroup = cgroups.create(number) if isolation.tier == 'T0' else None
  if isolation.tier == 'T0' and cgroup is None:
    raise isolation_lib.IsolationError(
        'Tier T0 needs a memory and a pids cgroup, and none can be made below'
        ' /sys/fs/cgroup (is it mounted read-only?). Mount it writable, or'
        ' take tier T1.'
    )
  return Place(isolation=isolation, cgroup=cgroup)
