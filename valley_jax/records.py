"""The row types of all files of the flow, each declared once:

    traces -> shards -> checkpoint -> completions -> judgements -> scores

A record is a frozen `msgspec.Struct`. In a JSONL file (see `jsonl.py`) it is one JSON object per
line, with exactly the declared fields in their order.
"""

import enum
from typing import Any

import msgspec

from valley_jax import errors


class Mode(enum.Enum):
  """How a test case drives a submission."""

  STDIN = 'stdin'  # Input on standard input, output on standard output.
  FUNCTION = 'function'  # JSON arguments in, JSON return value out.
  ASSERT = 'assert'  # Test code that runs after the submission.
  INTERACTIVE = 'interactive'  # A dialogue with the problem's own program.


class Profile(enum.Enum):
  """The rules that a submission is judged by."""

  STRICT = 'strict'  # The rules of a contest judge.
  LCB_COMPAT = 'lcb_compat'  # The rules of LiveCodeBench's grader.


class Verdict(enum.Enum):
  """What an execution means; the value is the judges' abbreviation."""

  ACCEPTED = 'AC'
  WRONG_ANSWER = 'WA'
  TIME_LIMIT = 'TLE'  # CPU time of the whole process tree.
  IDLE_LIMIT = 'ILE'  # Wall time, while hardly using the CPU.
  MEMORY_LIMIT = 'MLE'
  OUTPUT_LIMIT = 'OLE'
  RUNTIME_ERROR = 'RE'  # Non-zero exit or signal, whatever was printed.
  COMPILE_ERROR = 'CE'  # Does not compile or parse, or there is no program.
  INTERNAL_ERROR = 'IE'  # A failure of the judge: retried, never cached or scored.
  BROKEN_PROBLEM = 'BP'  # The problem's own program fails at the jury's answer: never scored.

  @property
  def concerns_program(self) -> bool:
    """Whether it says something about the program: neither judge nor problem has failed."""
    return self not in (Verdict.INTERNAL_ERROR, Verdict.BROKEN_PROBLEM)


class FinishReason(enum.Enum):
  """Why sampling of a completion ended."""

  EOS = 'eos'  # The student's end-of-turn token.
  STOP = 'stop'  # A stop string.
  LENGTH = 'length'  # The token budget was used up: the completion is truncated.
  LOOP = 'loop'  # The completion repeated itself and was cut off.


# The languages of programs by the names that rows use, each with the other names that data sets and
# code blocks use. `execution/languages.py` says how each is compiled.
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
  """Returns the name that rows use for a language; an unknown name is only lower-cased."""
  return _CANONICAL_LANGUAGES.get(name.lower(), name.lower())


class Record(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
  """Base of all records: immutable, keyword-only, no unknown fields."""


class Limits(Record):
  """The most that one execution of one test case may use."""

  cpu_seconds: float | None = None  # None: `cpu_seconds` of the config.
  memory_mib: int = 1024
  output_kib: int = 16 * 1024


class TestCase(Record):
  """One test; the problem's mode says what its texts mean.

  stdin: `input` is standard input, `expected` standard output.
  function: `input` is a JSON list of arguments, `expected` a JSON value.
  assert: `input` is Python code that runs after the submission in its namespace and passes if it
    reaches its end; `expected` is empty.
  """

  input: str
  expected: str = ''
  is_sample: bool = False  # Whether the statement shows it.


class Protocol(enum.Enum):
  """How a problem's own program is called (its arguments), and how it answers."""

  KATTIS = 'kattis'  # input answer feedback_dir/ flags < output; exit 42 or 43.
  TESTLIB = 'testlib'  # input output answer; exit 0 accepts, 1 and 2 reject.
  PYTHON = 'python'  # input output answer; prints 1 or 0 (open-r1's checkers).


class Program(Record):
  """A checker or interactor that comes with a problem."""

  language: str
  files: dict[str, str]  # Text by file name; the first is the main one.
  protocol: Protocol


class Problem(Record):
  """A problem with all that is needed to judge it; a student sees only `statement` and `stub`."""

  problem_id: str
  statement: str
  tests: tuple[TestCase, ...]
  mode: Mode = Mode.STDIN
  entry_point: str = ''  # Name of the function; modes function and assert only.
  starter_code: str = ''  # Runs before a submission; not in mode stdin.
  stub: str = ''  # Code that the student must complete; '': none.
  # One of `execution/checkers.py`, or 'program': then `program` decides.
  checker: str = 'tokens'
  flags: tuple[str, ...] = ()  # Tune the checker: ('float_tolerance', '1e-6').
  program: Program | None = None
  limits: Limits = Limits()
  difficulty: str = ''
  source: str = ''
  platform: str = ''  # codeforces, leetcode, atcoder, ...
  date: str = ''  # Date of the contest, YYYY-MM-DD.
  release: str = ''  # Release of the data set, such as v5.

  # Not left to msgspec's `Meta`: it checks rows of files, but not problems that readers construct.
  def __post_init__(self):
    if not self.problem_id:
      raise errors.UserError('`problem_id` is empty; give every problem a name.')
    if not self.tests:
      raise errors.UserError(
          f'`tests` of problem {self.problem_id} is empty; a problem without tests would accept'
          ' anything.'
      )
    needs_program = self.checker == 'program' or self.mode is Mode.INTERACTIVE
    if needs_program and self.program is None:
      raise errors.UserError(
          f'`program` of problem {self.problem_id} is missing; a program checker and mode'
          ' interactive need one.'
      )
    if self.mode in (Mode.FUNCTION, Mode.ASSERT) and not self.entry_point:
      raise errors.UserError(
          f'`entry_point` of problem {self.problem_id} is empty; mode {self.mode.value} needs the'
          ' name of the function.'
      )


class Trace(Record):
  """A problem's statement with a teacher's reasoning and solution."""

  trace_id: str
  problem_id: str
  question: str
  response: str  # Thinking and answer, as the student learns to write them.
  teacher: str = ''
  difficulty: str = ''
  source: str = ''  # Data set that the question is from.
  is_correct: bool | None = None  # None: unknown.
  split: str = ''  # Split of that data set.
  license: str = ''
  language: str = ''  # Language of the program, a key of LANGUAGES; '': unknown.
  pass_rate: float | None = None  # Share of the tests that the program passes.
  method: str = ''  # How the teacher's response was sampled.
  prompt_sha256: str = ''  # Hash of the teacher's prompt.


class Completion(Record):
  """What a student wrote for (problem_id, sample_index)."""

  problem_id: str
  sample_index: int
  text: str
  finish_reason: FinishReason
  num_prompt_tokens: int
  tokens: tuple[int, ...]  # Without the end token.
  # Sum over the sampled tokens, in nats, untempered; None: the server did not report it.
  log_prob: float | None
  log_prob_tempered: float | None = None  # The same at the sampling temperature.
  prompt_sha256: str = ''  # Hash of prompt and chat template, 64 hex digits.


class PartialCompletion(Record):
  """A completion that is still being sampled; sampling can resume after these tokens."""

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
  """The verdict on a submission. Seconds and MiB are the maximum over its tests."""

  problem_id: str
  sample_index: int
  verdict: Verdict
  tests_passed: int
  num_tests: int
  first_failed: int | None  # Index of the first test that failed.
  cpu_seconds: float
  wall_seconds: float
  memory_mib: float
  tier: str  # T0, T1 or T2: the isolation of the program (`docs/judge.md`).
  waivers: tuple[str, ...] = ()  # Properties of the tier that were not proven.
  profile: Profile = Profile.STRICT
  calibration: float = 0.0  # CPU seconds of a reference loop on this host.
  difference: str = ''  # How the profile's verdict differs from the strict one.
  message: str = ''  # The end of stderr, or why it failed.
  digest: str = ''  # Hashes of what was judged; see `scoring/completeness.py`.


class BadRowError(errors.UserError):
  """A row that is not a valid record of its type."""


def sample_key(row: Completion | Judgement | PartialCompletion | Submission) -> tuple[str, int]:
  """Returns (problem_id, sample_index), which identifies a sample in every file."""
  return row.problem_id, row.sample_index


def replace(record: Any, **changes: Any) -> Any:
  """Returns a copy of a record with some fields changed."""
  return msgspec.structs.replace(record, **changes)


def to_json(record: Any) -> bytes:
  """Returns the JSON line of a record, without the newline."""
  return msgspec.json.encode(record)


def from_json(data: bytes, record_type: Any) -> Any:
  """Returns the record of a JSON line."""
  return msgspec.json.decode(data, type=record_type)
