"""Every record of the flow, the row types of all files:

    traces -> shards -> checkpoint -> completions -> judgements -> scores

A record is a frozen `msgspec.Struct`; in a JSONL file (see `jsonl.py`) it is one JSON object a line
with exactly the declared fields.
"""

import enum
from typing import Any

import msgspec

from valley_jax import errors


class Mode(enum.Enum):
  """How a test case drives a submission."""

  STDIN = 'stdin'  # input on standard input, output on standard output.
  FUNCTION = 'function'  # JSON arguments in, JSON return value out.
  ASSERT = 'assert'  # Test code that runs behind the submission.
  INTERACTIVE = 'interactive'  # A dialogue with the problem's own program.


class Profile(enum.Enum):
  """Whose rules a submission is judged by."""

  STRICT = 'strict'  # Those of a contest judge.
  LCB_COMPAT = 'lcb_compat'  # Those of LiveCodeBench's grader.


class Verdict(enum.Enum):
  """What an execution means; the value is the judges' abbreviation."""

  ACCEPTED = 'AC'
  WRONG_ANSWER = 'WA'
  TIME_LIMIT = 'TLE'  # CPU time of the whole process tree.
  IDLE_LIMIT = 'ILE'  # Wall time, while hardly using the CPU.
  MEMORY_LIMIT = 'MLE'
  OUTPUT_LIMIT = 'OLE'
  RUNTIME_ERROR = 'RE'  # Non-zero exit or signal, whatever was printed.
  COMPILE_ERROR = 'CE'  # Does not parse, or no program in the completion.
  INTERNAL_ERROR = 'IE'  # Ours. Retried, never cached, never scored.


class FinishReason(enum.Enum):
  """Why sampling of a completion ended."""

  EOS = 'eos'  # The student's end-of-turn token.
  STOP = 'stop'  # A stop string.
  LENGTH = 'length'  # The token budget: the completion is truncated.
  LOOP = 'loop'  # It said the same over and over: cut off.


# Languages of programs, as rows name them, with their other names in the wild. How each is compiled
# and run: `execution/languages.py`.
LANGUAGES = {
    'python': ('py', 'python3', 'pypy3'),
    'c': (),
    'cpp17': ('cpp', 'c++', 'cc', 'cxx', 'c++17'),
    'cpp20': ('c++20',),
}
_CANONICAL_LANGUAGES = {
    name: language for language, others in LANGUAGES.items() for name in (language, *others)
}


def canonical_language(name: str) -> str:
  """Returns the name that rows use for a language; an unknown one is returned in lower case."""
  return _CANONICAL_LANGUAGES.get(name.lower(), name.lower())


class Record(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
  """Base of all records: immutable, keyword-only, no unknown fields."""


class Limits(Record):
  """What one execution of one test case may use at most."""

  cpu_seconds: float | None = None  # None: the config's `cpu_seconds`.
  memory_mib: int = 1024
  output_kib: int = 16 * 1024


class TestCase(Record):
  """One test: by mode a text pair, a JSON pair, or assert code.

  stdin: `input` is standard input, `expected` standard output.
  function: `input` is a JSON list of arguments, `expected` a JSON value.
  assert: `input` is Python code that runs after the submission in its
    namespace and passes if it reaches its end; `expected` is empty.
  """

  input: str
  expected: str = ''
  is_sample: bool = False  # Shown in the statement.


class Protocol(enum.Enum):
  """How a problem's own program is called, and how it answers."""

  KATTIS = 'kattis'  # input answer feedback_dir/ flags < output; exit 42 or 43.
  TESTLIB = 'testlib'  # input output answer; exit 0 accepts, 1 and 2 reject.
  PYTHON = 'python'  # input output answer; prints 1 or 0 (open-r1's checkers).


class Program(Record):
  """A checker or interactor that comes with a problem."""

  language: str
  files: dict[str, str]  # Text by file name; the first is the main one.
  protocol: Protocol


class Problem(Record):
  """A problem as a judge holds it.

  Only `statement` and `stub` go to a student.

  `checker` names one of `execution/checkers.py`, which `flags` tune
  ('float_tolerance', '1e-6'), or is 'program': then `program` decides.
  """

  problem_id: str
  statement: str
  tests: tuple[TestCase, ...]
  mode: Mode = Mode.STDIN
  entry_point: str = ''  # The function's name in modes function and assert.
  starter_code: str = ''  # Runs ahead of a submission; not in mode stdin.
  stub: str = ''  # What a student shall complete; '': see the statement.
  checker: str = 'tokens'
  flags: tuple[str, ...] = ()
  program: Program | None = None
  limits: Limits = Limits()
  difficulty: str = ''
  source: str = ''
  platform: str = ''  # codeforces, leetcode, atcoder, ...
  date: str = ''  # Of the contest, as YYYY-MM-DD.
  release: str = ''  # Of the set: v5.

  def __post_init__(self):
    if not self.problem_id:
      raise errors.UserError('`problem_id` is empty; give every problem a name.')
    if not self.tests:
      raise errors.UserError(
          f'`tests` of problem {self.problem_id} is empty; a problem without'
          ' tests would accept anything.'
      )
    needs_program = self.checker == 'program' or self.mode is Mode.INTERACTIVE
    if needs_program and self.program is None:
      raise errors.UserError(
          f'`program` of problem {self.problem_id} is missing; a program'
          ' checker and mode interactive need one.'
      )
    if self.mode in (Mode.FUNCTION, Mode.ASSERT) and not self.entry_point:
      raise errors.UserError(
          f'`entry_point` of problem {self.problem_id} is empty; mode'
          f' {self.mode.value} needs the name of the function.'
      )


class Trace(Record):
  """A problem's statement with a teacher's reasoning and solution."""

  trace_id: str
  problem_id: str
  question: str
  response: str  # Think text and answer, as the student shall write it.
  teacher: str = ''
  difficulty: str = ''
  source: str = ''  # The set that the question is from.
  is_correct: bool | None = None  # None: unknown.
  split: str = ''  # Of that set.
  license: str = ''
  language: str = ''  # Of the program, as a submission has it; '': unknown.
  pass_rate: float | None = None  # Share of the tests that the program passes.
  method: str = ''  # How the teacher decoded.
  prompt_sha256: str = ''  # Of what the teacher was asked.


class Completion(Record):
  """What a student wrote for (problem_id, sample_index)."""

  problem_id: str
  sample_index: int
  text: str
  finish_reason: FinishReason
  num_prompt_tokens: int
  tokens: tuple[int, ...]  # Without the end token.
  # Sum over the sampled tokens, raw model, nats; None: a server did not tell.
  log_prob: float | None
  log_prob_tempered: float | None = None  # The same, at the temperature.
  prompt_sha256: str = ''  # Of prompt and chat template, 64 hex digits.


class Partial(Record):
  """How far a sample has come, and from where it can go on."""

  problem_id: str
  sample_index: int
  tokens: tuple[int, ...]
  log_prob: float
  log_prob_tempered: float


class Submission(Record):
  """A program to be judged."""

  problem_id: str
  sample_index: int
  source: str
  language: str = 'python'


class Judgement(Record):
  """What became of a submission. Seconds and MiB are the largest test's."""

  problem_id: str
  sample_index: int
  verdict: Verdict
  tests_passed: int
  num_tests: int
  first_failed: int | None  # Index of the first test that failed.
  cpu_seconds: float
  wall_seconds: float
  memory_mib: float
  tier: str  # T0, T1 or T2: what held the program (`docs/judge.md`).
  waivers: tuple[str, ...] = ()  # Properties that were not proven.
  profile: Profile = Profile.STRICT
  calibration: float = 0.0  # CPU seconds of a reference loop on this host.
  difference: str = ''  # Where the profile's verdict is not the strict one.
  message: str = ''  # The last words of stderr, or why it failed.
  digest: str = ''  # Of program, problem and limits: what was judged.


class BadRowError(errors.UserError):
  """A row that is not the record it should be."""


def sample_key(row: Completion | Judgement | Partial | Submission) -> tuple[str, int]:
  """Returns what identifies a sample in every file of the flow."""
  return row.problem_id, row.sample_index


def replace(record: Any, **changes: Any) -> Any:
  """Returns a copy of the record with some fields changed."""
  return msgspec.structs.replace(record, **changes)


def to_json(record: Any) -> bytes:
  """Returns the record's line, without the newline."""
  return msgspec.json.encode(record)


def from_json(data: bytes, record_type: Any) -> Any:
  """Returns the record of a line that `to_json` has made."""
  return msgspec.json.decode(data, type=record_type)
