"""Prompts: the words in which a student is asked, as data.

    ocr              OpenCodeReasoning's, with an empty system message
    livecodebench    LiveCodeBench's
    plain            the question as it stands
    file:PATH        your own; copy one of valley_jax/prompts/*.toml

A file is TOML: name, source, and the texts

    system           (may be left out) the system message; '' is one too, which
                     keeps templates from putting in their own
    stdin            for a program; {question} stands for the statement
    function         for a function whose head stands in the statement
    starter_code     for a function with a head of its own, {starter_code}

The rest of what a student reads comes from its chat template.
"""

import hashlib
import json
import pathlib
import re

import msgspec

from valley_jax import errors
from valley_jax import records

_DIRECTORY = pathlib.Path(__file__).parents[1] / 'prompts'
# What each text must have, and may have nothing else.
_PLACEHOLDERS: dict[str, set[str]] = {
    'system': set(),
    'stdin': {'question'},
    'function': {'question'},
    'starter_code': {'question', 'starter_code'},
}
_PLACEHOLDER = re.compile(r'\{(\w+)\}')


class Prompt(records.Record):
  """A prompt file; see above."""

  name: str
  source: str  # Where its words come from.
  stdin: str
  function: str
  starter_code: str
  system: str | None = None  # None: the template decides.


def load(spec: str) -> Prompt:
  """Returns the prompt of a name, or of `file:PATH`.

  Raises:
    ValueError: no such prompt, or a file that is none.
  """
  kind, colon, path = spec.partition(':')
  names = sorted(file.stem for file in _DIRECTORY.glob('*.toml'))
  if not colon and spec in names:
    return _read(_DIRECTORY / f'{spec}.toml')
  if kind != 'file':
    raise errors.UserError(
        f'config.prompt={spec!r} is no known prompt; take one of'
        f' {", ".join(names)}, or your own as file:PATH.'
    )
  return _read(pathlib.Path(path))


def words(prompt: Prompt, problem: records.Problem) -> str:
  """Returns how a student is asked to solve the problem."""
  if problem.mode not in (records.Mode.FUNCTION, records.Mode.ASSERT):
    return ask(prompt, problem.statement)
  if not problem.stub:
    return _put(prompt.function, {'question': problem.statement})
  values = {'question': problem.statement, 'starter_code': problem.stub}
  return _put(prompt.starter_code, values)


def ask(prompt: Prompt, question: str) -> str:
  """Returns how a student is asked for a program."""
  return _put(prompt.stdin, {'question': question})


def sha256(prompt: Prompt, template_sha256: str = '') -> str:
  """Returns the SHA-256 of all that puts a problem into words.

  The name, the source and the order within the file are no part of it.

  Args:
    prompt: Its texts.
    template_sha256: Of the chat template; '' for that of the texts alone.
  """
  texts = {field: getattr(prompt, field) for field in _PLACEHOLDERS}
  decisive = {**texts, 'template_sha256': template_sha256}
  return hashlib.sha256(json.dumps(decisive).encode()).hexdigest()


def _put(text: str, values: dict[str, str]) -> str:
  """Replaces the placeholders; braces within the values are left alone."""
  return _PLACEHOLDER.sub(lambda found: values[found[1]], text)


def _read(path: pathlib.Path) -> Prompt:
  try:
    prompt = msgspec.toml.decode(path.read_bytes(), type=Prompt)
  except OSError as e:
    raise errors.UserError(
        f'Prompt file {path} cannot be read: {e.strerror}; set config.prompt'
        ' to file:PATH of one that exists.'
    ) from e
  except ValueError as e:  # Of msgspec, and of what is not UTF-8.
    raise errors.UserError(
        f'Prompt file {path}: {e}. It is TOML with the texts name, source,'
        ' stdin, function, starter_code and, if wanted, system; compare it with'
        f' {_DIRECTORY}/ocr.toml.'
    ) from e
  if not prompt.name.strip():
    raise errors.UserError(f'Prompt file {path}: `name` is empty; give it one.')
  for field, wanted in _PLACEHOLDERS.items():
    _check(path, field, getattr(prompt, field) or '', wanted)
  return prompt


def _check(path: pathlib.Path, field: str, text: str, wanted: set[str]) -> None:
  """Refuses a text that lacks a placeholder or has an unknown one."""
  found = set(_PLACEHOLDER.findall(text))
  for name in sorted(wanted - found):
    raise errors.UserError(
        f'Prompt file {path}: `{field}` has no {{{name}}}; put it where the'
        f' {name.replace("_", " ")} of a problem shall stand.'
    )
  for name in sorted(found - wanted):
    known = ', '.join(f'{{{n}}}' for n in sorted(wanted)) or 'none'
    raise errors.UserError(
        f'Prompt file {path}: `{field}` has {{{name}}}, which nothing stands'
        f' for; known there: {known}. Take it out, or put a space behind its'
        ' brace if it is meant as it is.'
    )
