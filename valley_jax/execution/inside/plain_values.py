"""What test code sees of a submission: plain values, and proxies of everything else.

An assert that compares with an object of the submission would ask that object whether it is equal.
Therefore every value that passes from the submission to the test code becomes one that the
submission cannot have written: numbers, texts and containers of the builtin types themselves,
copied by the methods of those types. What is none of these, for instance a node of a tree or a
method, becomes a `Proxy`: it can be called, iterated over and asked for attributes, each of which
gives plain values and proxies again; it equals itself alone.

This file runs inside the sandbox, in the child that `supervisor.py` forks for a test.
"""

import _collections  # pyright: ignore[reportMissingImports]
import builtins
from typing import Any

# The functions below look builtins up here, where no submission replaces `type`.
__builtins__ = {**vars(builtins)}

_IMMUTABLE_TYPE = 1 << 8  # Py_TPFLAGS_IMMUTABLETYPE: no program can replace its methods.
# Descriptors of `type` itself: a metaclass may answer for its class.
_read_flags = type.__dict__['__flags__'].__get__
_read_bases = type.__dict__['__mro__'].__get__
_get_attribute, _set_attribute = getattr, setattr
_EXACT = frozenset({type(None), bool, int, float, complex, str, bytes})
# Modules whose types of values are written in C, so that nobody can change them.
_VALUE_MODULES = ('datetime', 'decimal', 're', 'numpy')
_CONTAINERS = (list, dict, set, _collections.deque)  # What a submission can write into.
# How each type is copied, whatever its subclasses define; elements still have to become plain.
_COPIES = {
    int: int.__pos__,
    float: float.__pos__,
    complex: complex.__pos__,
    str: str.__str__,
    bytes: lambda x: bytes.__getitem__(x, slice(None)),
    bytearray: lambda x: bytearray.__getitem__(x, slice(None)),
    list: lambda x: [*map(make_plain, list.__iter__(x))],
    tuple: lambda x: (*map(make_plain, tuple.__iter__(x)),),
    set: lambda x: {*map(make_plain, set.__iter__(x))},
    frozenset: lambda x: frozenset(map(make_plain, frozenset.__iter__(x))),
    dict: lambda x: {make_plain(k): make_plain(v) for k, v in dict.items(x)},
    _collections.deque: lambda x: _collections.deque(
        map(make_plain, _collections.deque.__iter__(x))
    ),
}


class Proxy:
  """An object of the submission; the test code never holds the object itself."""

  __slots__ = ('_target',)

  def __call__(self, *args, **kwargs):
    """Calls it; what it has left in the arguments, or returns, is made plain."""
    call = _get_target(self)
    try:
      value = call(*map(_unwrap, args), **{name: _unwrap(x) for name, x in kwargs.items()})
    finally:
      for argument in (*args, *kwargs.values()):
        _clean_in_place(argument)
    return make_plain(value)

  def __iter__(self):
    return map(make_plain, iter(_get_target(self)))

  def __next__(self):
    return make_plain(next(_get_target(self)))

  def __getattr__(self, name: str):
    return make_plain(_get_attribute(_get_target(self), name))

  def __setattr__(self, name: str, value: Any):
    _set_attribute(_get_target(self), name, _unwrap(value))


_get_target, _put_target = Proxy._target.__get__, Proxy._target.__set__  # pyright: ignore
_proxies: dict[int, Proxy] = {}  # Keys are identities of the targets, which stay alive.


def make_plain(value: Any) -> Any:
  """Returns a value as the test code may see it."""
  kind = type(value)
  if kind in _EXACT or kind is Proxy:
    return value
  for base in _read_bases(kind):
    if base in _COPIES:
      return _COPIES[base](value)
  is_fixed = _read_flags(kind) & _IMMUTABLE_TYPE and kind.__module__ in _VALUE_MODULES
  if is_fixed and not hasattr(kind, '__iter__') and not callable(value):
    return value.item() if kind.__module__ == 'numpy' else value
  if id(value) not in _proxies:
    proxy = _proxies[id(value)] = object.__new__(Proxy)
    _put_target(proxy, value)
  return _proxies[id(value)]


def _unwrap(value: Any) -> Any:
  """Returns an argument as the submission gets it; lists stay the same lists."""
  if type(value) is Proxy:
    return _get_target(value)
  if type(value) is list and any(type(x) is Proxy for x in value):
    value[:] = map(_unwrap, value)
  return value


def _clean_in_place(argument: Any) -> None:
  """Makes plain what the submission has put into a container of the test code."""
  containers, cleaned = [argument], {}

  def clean(value: Any) -> Any:
    if type(value) not in _CONTAINERS:
      return make_plain(value)
    containers.append(value)  # It stays the same container; its turn comes.
    return value

  while containers:
    container = containers.pop()
    kind = type(container)
    if kind not in _CONTAINERS or id(container) in cleaned:
      continue
    cleaned[id(container)] = container
    if kind is dict:
      items = [(make_plain(key), clean(value)) for key, value in container.items()]
    else:
      items = [*map(clean, container)]
    container.clear()
    (container.update if kind in (dict, set) else container.extend)(items)


def build_test_namespace(own: dict, provided: dict, entry_point: str) -> dict:
  """Returns the namespace of the test code.

  Args:
    own: The namespace of the submission.
    provided: Names of the starter code, and the builtins of before the submission. Only the
      entry point and `Solution` are the submission's all the same: starter code may hold their
      unfinished forms.
    entry_point: The name that the problem asks for.
  """
  solved = {entry_point, 'Solution'}
  names = [x for x in own if x in solved or x not in provided.keys() | provided['__builtins__']]
  return {**provided, **{name: make_plain(own[name]) for name in names}}
