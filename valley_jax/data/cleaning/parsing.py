"""Does a program parse? Nothing of it is run, and no text is too strange."""

import ast
from collections.abc import Iterator
import functools
import re
import warnings

import tree_sitter
import tree_sitter_cpp

# Contests take 64 KiB. A parser may take seconds, and thousands of times the
# memory, for what is not of its language.
_MAX_SOURCE = 1 << 17
_MACRO = re.compile(r'^[ \t]*#[ \t]*define\b', re.MULTILINE)


def parses(source: str, language: str) -> bool:
  """Says whether a program parses; one that is empty does not.

  Args:
    source: What is over 131,072 characters is no solution, and does not parse.
    language: `python`, `c`, `cpp17` or `cpp20`; of others nothing parses.
  """
  if not source.strip() or len(source) > _MAX_SOURCE:
    return False
  if language == 'python':
    return _python_parses(source)
  return language in ('c', 'cpp17', 'cpp20') and _cpp_parses(source)


def _python_parses(source: str) -> bool:
  """By the grammar of this interpreter, as in the judge."""
  try:
    # '\d' warns; that is no error, nor news.
    with warnings.catch_warnings(action='ignore'):
      ast.parse(source)
  except (SyntaxError, ValueError, RecursionError, MemoryError, SystemError):
    return False  # ValueError: NUL or a lone surrogate. Others: too nested.
  return True


@functools.cache
def _cpp_parser() -> tree_sitter.Parser:
  return tree_sitter.Parser(tree_sitter.Language(tree_sitter_cpp.language()))


def _cpp_parses(source: str) -> bool:
  """No node is an error or missing; programs with macros get some credit.

  A program that uses macros of its own (`rep(i, n) cout << i;`) is no C++ until
  they are expanded, and nothing here expands them. So in one that defines any,
  only two things count, for which macros are seldom to blame: an error outside
  of all functions and classes (a brace too many, or a text that is cut off or
  no C++), and a missing brace.
  """
  root = _cpp_parser().parse(source.encode('utf-8', 'replace')).root_node
  if not root.has_error or not _MACRO.search(source):
    return not root.has_error
  return not any(node.is_error for node in root.children) and not any(
      node.is_missing and node.type == '}' for node in _erroneous(root)
  )


def _erroneous(root: tree_sitter.Node) -> Iterator[tree_sitter.Node]:
  """Yields the nodes that are, or hold, an error or something missing."""
  waiting = [root]
  while waiting:
    node = waiting.pop()
    yield node
    waiting.extend(child for child in node.children if child.has_error)
