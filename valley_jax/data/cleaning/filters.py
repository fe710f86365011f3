"""Which traces are fit to learn from: named, pure predicates.

`config.filters` has one field a filter, and is off where it is False, 0 or (). Each filter looks at
one trace alone, and refuses it or not:

    think             exactly one <think>…</think>: it opens the response, is closed once, and is
                      not empty
    code_in_answer    the answer has a program: what scoring would extract from it
    no_code_in_think  no line of the thought is a code fence
    parses            that program parses: Python by `ast`, C and C++ by tree-sitter
    characters        (min, max) characters of the response
    loop_characters   nowhere this many characters that are one phrase, four times or more
    languages         the program is in one of these
    judgement         of right, wrong, unknown: what is known about the program
    pass_rate         (min, max) share of tests passed; unknown is refused
    licenses          the license is one of these, in small or capital letters
    sources           the question is from one of these sets
    not_splits        the question is from none of these splits, such as test

All of them look at structure. A word that occurs somewhere, such as `pass` in a program or <think>
in the question, refuses nothing.
"""

import ast
from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses
import functools
import re
from typing import Annotated, Any
import warnings

import msgspec
import tree_sitter
import tree_sitter_cpp

from valley_jax import errors
from valley_jax import programs
from valley_jax import records
from valley_jax.runtime import config_groups

JUDGEMENTS = {'right': True, 'wrong': False, 'unknown': None}
_MIN_LOOP = 64  # Characters; a shorter run, such as a line of dashes, is no loop.
_LOOP_TIMES = 4  # As `sampling/samples.py`, which counts in tokens.
# Characters. Contests take 64 KiB. A parser may take seconds, and thousands of times the memory,
# for a text that is not in its language.
_MAX_SOURCE = 1 << 17
_MACRO = re.compile(r'^[ \t]*#[ \t]*define\b', re.MULTILINE)

_Names = Annotated[
    tuple[Annotated[str, msgspec.Meta(pattern=r'\S')], ...],
    msgspec.Meta(description="names, as in ('a', 'b'), or () for any"),
]
_LENGTHS = '(min, max) with 0 <= min <= max, or () for any'
_RATES = '(min, max) with 0 <= min <= max <= 1, or () for any'
_LOOPS = f'{_MIN_LOOP} characters or more, or 0 for never'


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
  """`config.filters`; a filter that is left out is off."""

  think: bool = False
  code_in_answer: bool = False
  no_code_in_think: bool = False
  parses: bool = False
  characters: Annotated[tuple[float, ...], msgspec.Meta(description=_LENGTHS)] = ()
  loop_characters: Annotated[int, msgspec.Meta(description=_LOOPS)] = 0
  languages: _Names = ()
  judgement: _Names = ()
  pass_rate: Annotated[tuple[float, ...], msgspec.Meta(description=_RATES)] = ()
  licenses: _Names = ()
  sources: _Names = ()
  not_splits: _Names = ()

  def __post_init__(self):
    languages = {records.canonical_language(name) for name in _fold_names(self.languages)}
    for name, is_valid, wanted in (
        ('characters', _is_window(self.characters, float('inf')), _LENGTHS),
        ('pass_rate', _is_window(self.pass_rate, 1), _RATES),
        ('loop_characters', not 0 != self.loop_characters < _MIN_LOOP, _LOOPS),
        ('languages', languages <= {*records.LANGUAGES}, f'some of {", ".join(records.LANGUAGES)}'),
        (
            'judgement',
            _fold_names(self.judgement) <= {*JUDGEMENTS},
            f'some of {", ".join(JUDGEMENTS)}',
        ),
    ):
      if not is_valid:
        value = getattr(self, name)
        raise errors.UserError(f'config.filters.{name}={value!r}: want {wanted}.')

  @classmethod
  def from_config(cls, group: Mapping[str, Any]) -> 'Settings':
    """Returns the settings of `config.filters`.

    Raises:
      UserError: an unknown field, or a value that its field does not allow.
    """
    return config_groups.convert_group(group, 'filters', cls)


def _is_window(window: tuple[float, ...], maximum: float) -> bool:
  return not window or len(window) == 2 and 0 <= window[0] <= window[1] <= maximum


def _fold_names(names: Sequence[str]) -> frozenset[str]:
  return frozenset(name.strip().lower() for name in names)


@dataclasses.dataclass(frozen=True)
class Filter:
  """A name, and a function that says whether a trace is kept; can be pickled."""

  name: str
  keeps: Callable[[records.Trace], bool]


def build_filters(settings: Settings) -> tuple[Filter, ...]:
  """Returns the filters that are on, the cheap ones first."""
  partial, s = functools.partial, settings
  languages = frozenset(map(records.canonical_language, _fold_names(s.languages)))
  judgements = frozenset(JUDGEMENTS[name] for name in _fold_names(s.judgement))
  # Functions of the module with arguments, not closures: filters are pickled.
  keeps: dict[str, Callable[[records.Trace], bool]] = {
      'sources': partial(_has_label, field='source', names=_fold_names(s.sources)),
      'not_splits': partial(_lacks_label, field='split', names=_fold_names(s.not_splits)),
      'licenses': partial(_has_label, field='license', names=_fold_names(s.licenses)),
      'judgement': partial(_has_judgement, judgements=judgements),
      'pass_rate': partial(_has_pass_rate, window=s.pass_rate),
      'characters': partial(_has_length, window=s.characters),
      'think': _thinks_once,
      'code_in_answer': _has_program,
      'no_code_in_think': _thinks_without_code,
      'languages': partial(_has_language, languages=languages),
      'parses': _has_parsing_program,
      'loop_characters': partial(_has_no_loop, length=s.loop_characters),
  }
  # False, 0 and () turn a filter off.
  return tuple(Filter(name, keep) for name, keep in keeps.items() if getattr(s, name))


def find_refusal(trace: records.Trace, filters: Sequence[Filter]) -> str:
  """Returns the name of the first filter that refuses a trace; '' if all keep it."""
  return next((f.name for f in filters if not f.keeps(trace)), '')


def _thinks_once(trace: records.Trace) -> bool:
  text = trace.response.lstrip()
  if text.count('<think>') != 1 or text.count('</think>') != 1:
    return False
  return text.startswith('<think>') and bool(programs.split_thinking(text)[0].strip())


def _has_program(trace: records.Trace) -> bool:
  return programs.extract_from_trace(trace)[1] is not None


def _thinks_without_code(trace: records.Trace) -> bool:
  return not programs.has_code_fence(programs.split_thinking(trace.response)[0])


def _has_parsing_program(trace: records.Trace) -> bool:
  language, source = programs.extract_from_trace(trace)
  return source is not None and does_program_parse(source, language)


def _has_length(trace: records.Trace, window: tuple[float, ...]) -> bool:
  return window[0] <= len(trace.response) <= window[1]


def _has_no_loop(trace: records.Trace, length: int) -> bool:
  return not has_loop(trace.response, length)


def _has_language(trace: records.Trace, languages: frozenset[str]) -> bool:
  language, source = programs.extract_from_trace(trace)
  return source is not None and language in languages


def _has_judgement(trace: records.Trace, judgements: frozenset[bool | None]) -> bool:
  return trace.is_correct in judgements


def _has_pass_rate(trace: records.Trace, window: tuple[float, ...]) -> bool:
  return trace.pass_rate is not None and window[0] <= trace.pass_rate <= window[1]


def _has_label(trace: records.Trace, field: str, names: frozenset[str]) -> bool:
  return getattr(trace, field).strip().lower() in names


def _lacks_label(trace: records.Trace, field: str, names: frozenset[str]) -> bool:
  return not _has_label(trace, field, names)


def does_program_parse(source: str, language: str) -> bool:
  """Returns whether a program parses. It is not run; an empty one does not parse.

  Args:
    source: The program. A text of over 131,072 characters is no solution, and does not parse.
    language: `python`, `c`, `cpp17` or `cpp20`; programs in any other do not parse.
  """
  if not source.strip() or len(source) > _MAX_SOURCE:
    return False
  if language == 'python':
    return _does_python_parse(source)
  return language in ('c', 'cpp17', 'cpp20') and _does_cpp_parse(source)


def _does_python_parse(source: str) -> bool:
  """Uses the grammar of this interpreter, as the judge does."""
  try:
    with warnings.catch_warnings(action='ignore'):  # '\d' warns, which is no error.
      ast.parse(source)
  except (SyntaxError, ValueError, RecursionError, MemoryError, SystemError):
    return False  # ValueError: NUL or a lone surrogate. Others: nested too deep.
  return True


@functools.cache
def _load_cpp_parser() -> tree_sitter.Parser:
  return tree_sitter.Parser(tree_sitter.Language(tree_sitter_cpp.language()))


def _does_cpp_parse(source: str) -> bool:
  """Returns whether no node is an error or missing; programs with macros get some credit.

  A program that uses macros of its own (`rep(i, n) cout << i;`) is not C++ until they are expanded,
  and nothing here expands them. In a program that defines any, only two errors count, because
  macros seldom cause them: an error outside of all functions and classes (a brace too many, a text
  that is cut off or not C++), and a missing brace.
  """
  root = _load_cpp_parser().parse(source.encode('utf-8', 'replace')).root_node
  if not root.has_error or not _MACRO.search(source):
    return not root.has_error
  return not any(node.is_error for node in root.children) and not any(
      node.is_missing and node.type == '}' for node in _iterate_error_nodes(root)
  )


def _iterate_error_nodes(root: tree_sitter.Node) -> Iterator[tree_sitter.Node]:
  """Yields the nodes that are, or contain, an error or something missing."""
  waiting = [root]
  while waiting:
    node = waiting.pop()
    yield node
    waiting.extend(child for child in node.children if child.has_error)


def has_loop(text: str, length: int) -> bool:
  """Returns whether `length` characters in a row are one phrase, repeated four times or more.

  Only exact repetitions count: a list whose numbers count up is no loop. Takes time linear in the
  text.

  Args:
    text: Any text.
    length: At least 8.

  Example:
    >>> has_loop('So: ' + 'wait, ' * 20, 100)
    True
  """
  # Such a run contains one of these blocks as a whole, with the phrase at least twice. The block's
  # smallest period is then that of the run, too (Fine and Wilf).
  half = length // 2
  for start in range(0, len(text) - half + 1, half):
    period = _find_period(text[start : start + half])
    if period and period <= length // _LOOP_TIMES:
      if _measure_run(text, start, period, length) >= length:
        return True
  return False


def _find_period(block: str) -> int:
  """Returns the least period of at most half a block; 0 if there is none."""
  # If there is one, its phrase fits in the head, so the head first recurs just where that period
  # ends.
  period = block.find(block[: len(block) // 2], 1)
  if period < 0 or block[period:] != block[:-period]:
    return 0
  return period


def _measure_run(text: str, start: int, period: int, enough: int) -> int:
  """Returns how many characters around `start` have a period, up to `enough`."""
  first, last = start, start + period
  while first > 0 and last - first < enough:
    if text[first - 1] != text[first - 1 + period]:
      break
    first -= 1
  while last < len(text) and last - first < enough:
    if text[last] != text[last - period]:
      break
    last += 1
  return last - first
