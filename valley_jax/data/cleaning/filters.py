"""Which traces are fit to learn from: named, pure predicates.

`config.filters` has one field a filter, and is off where it is False, 0, '' or
(). Each looks at one trace alone, and refuses it or not:

    think             exactly one <think>…</think>: it opens the response, is
                      closed once, and holds something
    code_in_answer    the answer has a program: what scoring would take from it
    no_code_in_think  no line of the thought is a code fence
    parses            that program parses (`data/cleaning/parsing.py`): Python by `ast`,
                      C and C++ by tree-sitter
    characters        (least, most) characters of the response
    loop_characters   nowhere so many characters that are one phrase, four times
                      or more (`data/cleaning/loops.py`)
    languages         the program is in one of these
    judgement         of right, wrong, unknown: what may be said of the program
    pass_rate         (least, most) share of tests passed; unknown is refused
    licenses          the license is one of these, in small or capital letters
    sources           the question is from one of these sets
    not_splits        the question is from none of these splits, such as test

All of them look at structure. That a word stands somewhere, such as `pass` in a
program or <think> in the question, refuses nothing.
"""

from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses
import functools
from typing import Any

from valley_jax import errors
from valley_jax import programs
from valley_jax import records
from valley_jax.data.cleaning import loops
from valley_jax.data.cleaning import parsing

JUDGEMENTS = {'right': True, 'wrong': False, 'unknown': None}
_LEAST_LOOP = 64  # Characters; a shorter run, such as a line of dashes, is none.


@dataclasses.dataclass(frozen=True)
class Filter:
  """A name, and what keeps a trace; picklable."""

  name: str
  keep: Callable[[records.Trace], bool]


def refusal(trace: records.Trace, filters: Sequence[Filter]) -> str:
  """Returns the name of the first filter that refuses; '' if none does."""
  return next((f.name for f in filters if not f.keep(trace)), '')


def make(settings: Mapping[str, Any]) -> tuple[Filter, ...]:
  """Returns the filters that are on, the cheap ones first.

  Args:
    settings: `config.filters`; see above. A field that is left out is off.

  Raises:
    ValueError: an unknown field, or a value that its field does not take.
  """
  for name in settings:
    if name not in _FIELDS:
      raise errors.UserError(f'config.filters.{name} is no filter; there are {", ".join(_FIELDS)}.')
  return tuple(
      Filter(name, field(name, settings[name]))
      for name, field in _FIELDS.items()
      if name in settings and not _is_off(settings[name])
  )


def _is_off(value: Any) -> bool:
  return value is None or value in (False, '') or value == () or value == []


def _thinks_once(trace: records.Trace) -> bool:
  text = trace.response.lstrip()
  if text.count('<think>') != 1 or text.count('</think>') != 1:
    return False
  return text.startswith('<think>') and bool(programs.split_thinking(text)[0].strip())


def _has_program(trace: records.Trace) -> bool:
  return programs.extract_from_trace(trace)[1] is not None


def _thinks_without_code(trace: records.Trace) -> bool:
  return not programs.has_code_fence(programs.split_thinking(trace.response)[0])


def _parses(trace: records.Trace) -> bool:
  language, source = programs.extract_from_trace(trace)
  return source is not None and parsing.parses(source, language)


def _has_length(trace: records.Trace, least: float, most: float) -> bool:
  return least <= len(trace.response) <= most


def _has_no_loop(trace: records.Trace, length: int) -> bool:
  return not loops.has_loop(trace.response, length)


def _is_in(trace: records.Trace, languages: frozenset[str]) -> bool:
  language, source = programs.extract_from_trace(trace)
  return source is not None and language in languages


def _is_judged(trace: records.Trace, said: frozenset[bool | None]) -> bool:
  return trace.is_correct in said


def _passes(trace: records.Trace, least: float, most: float) -> bool:
  return trace.pass_rate is not None and least <= trace.pass_rate <= most


def _is_one_of(trace: records.Trace, field: str, names: frozenset[str]) -> bool:
  return getattr(trace, field).strip().lower() in names


def _is_none_of(trace: records.Trace, field: str, names: frozenset[str]) -> bool:
  return not _is_one_of(trace, field, names)


_Keep = Callable[[records.Trace], bool]
_Field = Callable[[str, Any], _Keep]


def _bad(name: str, value: Any, wanted: str) -> ValueError:
  return ValueError(f'config.filters.{name}={value!r}: want {wanted}.')


def _switch(keep: _Keep) -> _Field:
  def make_keep(name: str, value: Any) -> _Keep:
    if value is not True:
      raise _bad(name, value, 'True or False')
    return keep

  return make_keep


def _window(keep: Callable[..., bool], least: float, most: float) -> _Field:
  def make_keep(name: str, value: Any) -> _Keep:
    if not (
        isinstance(value, (tuple, list))
        and len(value) == 2
        and all(type(x) in (int, float) for x in value)
        and least <= value[0] <= value[1] <= most
    ):
      raise _bad(
          name, value, f'(least, most) with {least} <= least <= most <= {most}, or () for' ' any'
      )
    return functools.partial(keep, least=value[0], most=value[1])

  return make_keep


def _loop(name: str, value: Any) -> _Keep:
  if type(value) is not int or value < _LEAST_LOOP:
    raise _bad(name, value, f'{_LEAST_LOOP} characters or more, or 0 for never')
  return functools.partial(_has_no_loop, length=value)


def _names(name: str, value: Any) -> list[str]:
  """Returns what a list of names says, in small letters."""
  if not isinstance(value, (tuple, list)) or not all(
      isinstance(x, str) and x.strip() for x in value
  ):
    raise _bad(name, value, "names, as in ('a', 'b'), or () for any")
  return [x.strip().lower() for x in value]


def _languages(name: str, value: Any) -> _Keep:
  languages = frozenset(map(records.canonical_language, _names(name, value)))
  if not languages <= set(records.LANGUAGES):
    raise _bad(name, value, f'some of {", ".join(records.LANGUAGES)}')
  return functools.partial(_is_in, languages=languages)


def _judgement(name: str, value: Any) -> _Keep:
  names = _names(name, value)
  if not set(names) <= set(JUDGEMENTS):
    raise _bad(name, value, f'some of {", ".join(JUDGEMENTS)}')
  said = frozenset(JUDGEMENTS[x] for x in names)
  return functools.partial(_is_judged, said=said)


def _listed(keep: Callable[..., bool], field: str) -> _Field:
  def make_keep(name: str, value: Any) -> _Keep:
    names = frozenset(_names(name, value))
    return functools.partial(keep, field=field, names=names)

  return make_keep


# In the order in which they are asked.
_FIELDS: dict[str, _Field] = {
    'sources': _listed(_is_one_of, 'source'),
    'not_splits': _listed(_is_none_of, 'split'),
    'licenses': _listed(_is_one_of, 'license'),
    'judgement': _judgement,
    'pass_rate': _window(_passes, 0, 1),
    'characters': _window(_has_length, 0, float('inf')),
    'think': _switch(_thinks_once),
    'code_in_answer': _switch(_has_program),
    'no_code_in_think': _switch(_thinks_without_code),
    'languages': _languages,
    'parses': _switch(_parses),
    'loop_characters': _loop,
}
