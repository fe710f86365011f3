"""What travels between chips in a compiled step, read from its HLO.

XLA's own cost analysis counts no communication. The text of an optimised
module does: each collective names its result's shape and its groups of devices,
and each loop how often it runs.
"""

import collections
from collections.abc import Mapping
import dataclasses
import functools
import math
import re

import numpy as np

from valley_jax import errors

_BITS = {'pred': 8, 's4': 4, 'u4': 4, 'bf16': 16}  # Others end in their bits.
_COMPUTATION = re.compile(r'^(?:ENTRY )?%?([\w.\-]+) \(.*\{$')
_OP = re.compile(
    r'^\s*(?:ROOT )?%?[\w.\-]+ = (?P<shape>\(.*?\)|\S+) (?P<op>all-gather'
    r'|all-reduce|reduce-scatter|all-to-all|ragged-all-to-all'
    r'|collective-permute|collective-broadcast)(?:-start)?\('
)
_CALLED = re.compile(
    r'(?:calls|body|condition|to_apply|true_computation|false_computation)=' r'%?([\w.\-]+)'
)
_BRANCHES = re.compile(r'branch_computations=\{([^}]*)\}')
_TRIPS = re.compile(r'"known_trip_count":\{"n":"(\d+)"')
_MESH_GROUPS = re.compile(
    r'replica_groups=mesh\[([^]]*)\]'
    r'(?:, device_ids=\(\[([\d,]+)\](?:T\(([\d,]+)\))?\))? \{([^}]*)\}'
)
_SHAPE = re.compile(r'\b([a-z]+[0-9a-z]*)\[([0-9,]*)\]')


@dataclasses.dataclass(frozen=True)
class Collective:
  """One collective of the module, with how often a step runs it."""

  op: str
  axes: tuple[str, ...]  # The mesh axes it runs along.
  group_size: int
  bytes: int  # Of the result, on one device.
  count: int

  @property
  def received(self) -> float:
    """Bytes that reach a device in a step, by the ring algorithms."""
    others = (self.group_size - 1) / self.group_size
    factor = {
        'all-reduce': 2 * others,
        'reduce-scatter': self.group_size - 1,  # The result is one part.
        'collective-permute': 1.0,
        'collective-broadcast': 1.0,
    }
    return self.count * self.bytes * factor.get(self.op, others)


def read(hlo: str, mesh_shape: Mapping[str, int], unknown_trips: int = 1) -> list[Collective]:
  """Returns the collectives of an optimised module.

  One that the compiler has spread over several computations, to overlap it
  with others' work, keeps its channel and is counted once.

  Args:
    hlo: `compiled.as_text()`.
    mesh_shape: Sizes of the mesh axes, in the mesh's order.
    unknown_trips: How often a loop runs at most whose end depends on data.

  Raises:
    ValueError: a group of devices in a form that we do not know.
  """
  lines = _computations(hlo)
  counts = _counts(lines, unknown_trips)
  found: dict[str, Collective] = {}
  for name, body in lines.items():
    for number, line in enumerate(body):
      match = _OP.match(line)
      if match is None or not counts[name]:
        continue
      axes, size = _group(line, mesh_shape)
      channel = re.search(r'channel_id=(\d+)', line)
      key = channel[1] if channel else f'{name}:{number}'
      amount = _bytes(match['shape'], '-start(' in match[0])
      op = match['op']
      if name.startswith('all-reduce-scatter'):  # TPU: a fusion that is one.
        op, amount = 'reduce-scatter', amount // size
      collective = Collective(op, axes, size, amount, counts[name])
      other = found.get(key)
      if size > 1 and (other is None or other.count < collective.count):
        found[key] = collective
  return list(found.values())


def by_axes(collectives: list[Collective]) -> dict[tuple[str, ...], float]:
  """Returns the bytes that reach a device in a step, by mesh axes."""
  sums: dict[tuple[str, ...], float] = collections.defaultdict(float)
  for collective in collectives:
    sums[collective.axes] += collective.received
  return dict(sums)


def _computations(hlo: str) -> dict[str, list[str]]:
  """Returns each computation's lines, by name; the entry is ''."""
  # Up to the next one, and not to a `}`: the text of a kernel may hold that.
  computations, name = {}, None
  for line in hlo.splitlines():
    if match := _COMPUTATION.match(line):
      name = '' if line.startswith('ENTRY') else match[1]
      computations[name] = []
    elif name is not None:
      computations[name].append(line)
  return computations


def _counts(computations: dict[str, list[str]], unknown_trips: int) -> dict[str, int]:
  """Returns how often each computation runs when the entry runs once."""
  callers = collections.defaultdict(list)  # Of each: (caller, times a call).
  for caller, body in computations.items():
    for line in body:
      times = 1
      if ' while(' in line:
        times = _num_trips(line, computations) or unknown_trips
      called = _CALLED.findall(line)
      for names in _BRANCHES.findall(line):
        called += [name.strip().lstrip('%') for name in names.split(',')]
      for name in called:
        callers[name].append((caller, times))

  @functools.cache
  def count(name: str) -> int:
    if not name:
      return 1
    return sum(count(caller) * times for caller, times in callers[name])

  return {name: count(name) for name in computations}


def _num_trips(line: str, computations: dict[str, list[str]]) -> int | None:
  """Returns how often a `while` runs, if its text says so.

  On CPUs and GPUs it stands beside the loop. On TPUs it is what the condition
  compares the counter with, which in a scan begins at 0.
  """
  if trips := _TRIPS.search(line):
    return int(trips[1])
  name = re.search(r'condition=%?([\w.\-]+)', line)
  condition = '\n'.join(computations[name[1]] if name else [])
  compared = re.search(r'compare\(.*%([\w.\-]+)\), direction=LT', condition)
  if compared is None:
    return None
  bound = rf'%{re.escape(compared[1])} = s32\[\]\S* constant\((\d+)\)'
  constant = re.search(bound, condition)
  return int(constant[1]) if constant else None


def _bytes(shape: str, is_start: bool) -> int:
  """Returns the bytes of a result; of a start, which has both ends, one's."""
  sizes = []
  for dtype, dims in _SHAPE.findall(shape):
    bits = _BITS.get(dtype) or int(re.sub(r'^[a-z]+(\d+).*', r'\1', dtype))
    size = math.prod(int(d) for d in dims.split(',') if d)
    sizes.append(size * bits // 8)
  return max(sizes) if is_start else sum(sizes)


def _group(line: str, mesh_shape: Mapping[str, int]) -> tuple[tuple[str, ...], int]:
  """Returns along which axes a collective's groups lie, and their size."""
  if match := _MESH_GROUPS.search(line):
    sizes, tiles, order, along = match.group(1, 2, 3, 4)
    return _group_of_mesh(sizes, tiles, order, along, mesh_shape)
  if match := re.search(r'source_target_pairs=\{(\{[\d,{} ]*\})\}', line):
    pairs = re.findall(r'\{(\d+),(\d+)\}', match[1])
    moved = [tuple(map(int, pair)) for pair in pairs]
    moved = [pair for pair in moved if pair[0] != pair[1]]
    return _axes_of(moved, mesh_shape), 2 if moved else 1
  if match := re.search(r'replica_groups=\[([\d,]+)\]<=\[([\d,]+)\](?:T\(([\d,]+)\))?', line):
    shape, tiles = (tuple(map(int, match[i].split(','))) for i in (1, 2))
    ids = np.arange(math.prod(tiles)).reshape(tiles)
    if match[3]:
      ids = ids.transpose(tuple(map(int, match[3].split(','))))
    groups = ids.reshape(shape)
    return _axes_of(groups[:1], mesh_shape), shape[-1]
  if match := re.search(r'replica_groups=\{\{([\d,]+)\}', line):
    group = tuple(map(int, match[1].split(',')))
    return _axes_of([group], mesh_shape), len(group)
  if 'replica_groups={}' in line:  # All of them.
    axes = tuple(axis for axis, size in mesh_shape.items() if size > 1)
    return axes, math.prod(mesh_shape.values())
  raise errors.UserError(
      f'The groups of devices in {line.strip()[:300]!r} are in a form unknown'
      ' to planning/collectives.py; add it to `_group`.'
  )


def _group_of_mesh(
    sizes: str, tiles: str | None, order: str | None, along: str, mesh_shape: Mapping[str, int]
) -> tuple[tuple[str, ...], int]:
  """Reads groups such as mesh['a'=2,'b'=4] {'a', 'b':(2)2}.

  The latter is a part of `b`: of size 2, below the first 2. In between may be
  said how the devices lie in the mesh: device_ids=([4,2]T(1,0)).
  """
  shape = {name: int(n) for name, n in re.findall(r"'(\w+)'=(\d+)", sizes)}
  parts, chosen = [], []
  cuts = {
      name: (int(before or 1), int(size or shape[name]))
      for name, before, size in re.findall(r"'(\w+)'(?::\((\d+)\)(\d+))?", along)
  }
  for name, size in shape.items():
    before, middle = cuts.get(name, (size, 1))
    parts += [before, middle, size // (before * middle)]
    chosen += [False, True, False]
  ids = np.arange(math.prod(parts))
  if tiles:
    ids = ids.reshape([int(n) for n in tiles.split(',')])
  if order:
    ids = ids.transpose([int(n) for n in order.split(',')])
  ids = ids.reshape(parts)
  first = ids[tuple(slice(None) if c else 0 for c in chosen)].ravel()
  return _axes_of([first], mesh_shape), len(first)


def _axes_of(groups, mesh_shape: Mapping[str, int]) -> tuple[str, ...]:
  """Returns the mesh axes along which the members of groups differ."""
  sizes = tuple(mesh_shape.values())
  differ = np.zeros(len(sizes), bool)
  for group in groups:
    places = np.stack(np.unravel_index(np.asarray(group), sizes))
    differ |= (places != places[:, :1]).any(axis=1)
  return tuple(axis for axis, d in zip(mesh_shape, differ) if d)
