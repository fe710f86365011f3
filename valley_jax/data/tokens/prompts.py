"""Prompts: the texts in which a student is asked to solve a problem, as data.

    ocr              OpenCodeReasoning's, with an empty system message
    livecodebench    LiveCodeBench's
    plain            the question as it is
    file:PATH        your own; copy one of valley_jax/data/prompts/*.toml

A file is TOML with a name, a source, and these texts:

    system           the system message, optional; an empty one stops templates from adding theirs
    stdin            for a program; {question} is replaced by the statement
    function         for a function whose signature is part of the statement
    starter_code     for a function with a separate signature, {starter_code}

Everything else that a student reads comes from its chat template.
"""

import hashlib
import json
import pathlib
import re

import msgspec

from valley_jax import errors
from valley_jax import records

_DIRECTORY = pathlib.Path(__file__).parents[1] / 'prompts'
# The placeholders of each text: all of them are needed, and no others are allowed.
_PLACEHOLDERS: dict[str, set[str]] = {
    'system': set(),
    'stdin': {'question'},
    'function': {'question'},
    'starter_code': {'question', 'starter_code'},
}
_PLACEHOLDER = re.compile(r'\{(\w+)\}')


class Prompt(records.Record):
  """The contents of a prompt file."""

  name: str
  source: str  # Where its texts come from.
  stdin: str
  function: str
  starter_code: str
  system: str | None = None  # None: the template decides.


def load_prompt(spec: str) -> Prompt:
  """Returns the prompt of a name, or of `file:PATH`.

  Raises:
    UserError: there is no such prompt, or the file is not a valid one.
  """
  kind, colon, path = spec.partition(':')
  names = sorted(file.stem for file in _DIRECTORY.glob('*.toml'))
  if not colon and spec in names:
    return _read_prompt_file(_DIRECTORY / f'{spec}.toml')
  if kind != 'file':
    raise errors.UserError(
        f'config.prompt={spec!r} is no known prompt; take one of {", ".join(names)}, or your own as'
        ' file:PATH.'
    )
  return _read_prompt_file(pathlib.Path(path))


def render_problem(prompt: Prompt, problem: records.Problem) -> str:
  """Returns the text in which a student is asked to solve the problem."""
  if problem.mode not in (records.Mode.FUNCTION, records.Mode.ASSERT):
    return render_question(prompt, problem.statement)
  if not problem.stub:
    return _fill_placeholders(prompt.function, {'question': problem.statement})
  values = {'question': problem.statement, 'starter_code': problem.stub}
  return _fill_placeholders(prompt.starter_code, values)


def render_question(prompt: Prompt, question: str) -> str:
  """Returns the text in which a student is asked for a program."""
  return _fill_placeholders(prompt.stdin, {'question': question})


def hash_prompt(prompt: Prompt, template_sha256: str = '') -> str:
  """Returns the SHA-256 of everything that decides how a problem is put to a student.

  The prompt's name, its source and the order of texts in the file do not count.

  Args:
    prompt: The texts.
    template_sha256: Hash of the chat template; '' for a hash of the prompt alone.
  """
  texts = {field: getattr(prompt, field) for field in _PLACEHOLDERS}
  decisive = {**texts, 'template_sha256': template_sha256}
  return hashlib.sha256(json.dumps(decisive).encode()).hexdigest()


def _fill_placeholders(text: str, values: dict[str, str]) -> str:
  # One pass over the text, so that braces within the values are left alone.
  return _PLACEHOLDER.sub(lambda match: values[match[1]], text)


def _read_prompt_file(path: pathlib.Path) -> Prompt:
  try:
    prompt = msgspec.toml.decode(path.read_bytes(), type=Prompt)
  except OSError as e:
    raise errors.UserError(
        f'Prompt file {path} cannot be read: {e.strerror}; set config.prompt to file:PATH of one'
        ' that exists.'
    ) from e
  except ValueError as e:  # Raised by msgspec, and by text that is not UTF-8.
    raise errors.UserError(
        f'Prompt file {path}: {e}. It is TOML with the texts name, source, stdin, function,'
        f' starter_code and, if wanted, system; compare it with {_DIRECTORY}/ocr.toml.'
    ) from e
  if not prompt.name.strip():
    raise errors.UserError(f'Prompt file {path}: `name` is empty; give it one.')
  for field, expected in _PLACEHOLDERS.items():
    _check_placeholders(path, field, getattr(prompt, field) or '', expected)
  return prompt


def _check_placeholders(path: pathlib.Path, field: str, text: str, expected: set[str]) -> None:
  """Refuses a text that lacks a placeholder or has an unknown one."""
  present = set(_PLACEHOLDER.findall(text))
  for name in sorted(expected - present):
    raise errors.UserError(
        f'Prompt file {path}: `{field}` has no {{{name}}}; put it where the'
        f' {name.replace("_", " ")} of a problem belongs.'
    )
  for name in sorted(present - expected):
    known = ', '.join(f'{{{n}}}' for n in sorted(expected)) or 'none'
    raise errors.UserError(
        f'Prompt file {path}: `{field}` has {{{name}}}, which is not a placeholder of it; known'
        f' there: {known}. Remove it, or put a space after its opening brace to keep the braces as'
        ' text.'
    )
