"""2,000 rows of traces in which it is known what is wrong with which.

`rows(seed)` gives the lines of a file of `records.Trace`, in the order of a
source: 1,905 that are sound, among them siblings which share half of their
statement or of their reasoning with another row; 40 that repeat an earlier one;
25 whose question is a problem of the evaluation; 30 that cannot be read.
"""

from collections.abc import Callable
from collections.abc import Sequence
import dataclasses
import json
import random
import re

NUM_ROWS = 2000
NUM_PROBLEMS = 200  # Of the evaluation.

_THINGS = (
    'apples bridges cards cities coins crates doors engines farms flowers games'
    ' houses islands jars keys lamps letters machines nodes orders parcels'
    ' pipes planets players pumps queues rivers robots ropes rooms seats ships'
    ' shelves signals stones students tanks tasks tiles towers trains trees'
    ' trucks villages wagons walls wells windows wires workers'
).split()
_PEOPLE = (
    'Ada Boris Chen Dora Emil Farid Greta Hana Ivan Jana Kofi Lena Mira Nils'
    ' Olga Pavel Quinn Rosa Samir Tara Umar Vera Wen Xenia Yusuf Zoe'
).split()
_QUALITIES = (
    'ancient blue broken cheap cold crowded deep distant dry empty expensive'
    ' fast fragile green heavy hidden hot large light long loud narrow new old'
    ' open painted quiet rare red round rusty sharp short silent slow small'
    ' smooth square steep strong sunny tall thin tiny warm wide wild young'
).split()
_DEEDS = (
    'arrange balance build carry choose clean collect combine connect count'
    ' cover cut deliver distribute exchange fill fix guard inspect join lift'
    ' link load mark merge move open order pack paint place plant polish repair'
    ' replace reverse rotate sell send separate share shift sort split stack'
    ' store swap trade unload visit watch weigh wrap'
).split()
_SENTENCES = (
    '{person} has {n} {quality} {things} and wants to {deed} all of them.',
    'Every day {person} may {deed} at most {k} {things} which are {quality}.',
    'The {things} of the {quality} {thing2} are numbered from $1$ to ${n}$.',
    'It costs ${a}_i$ coins to {deed} the $i$-th of the {quality} {things}.',
    'No two {quality} {things} may touch unless somebody decides to {deed}'
    ' the {thing2} between them.',
    'After that, {person} will {deed} the {quality} {things} once more.',
    'Between the {quality} {things} there are {k} {thing2} that nobody can' ' {deed}.',
    'When it rains, the {quality} {things} cannot {deed} any {thing2}.',
    'A {quality} set of {things} is called {quality2} if we can {deed} it in'
    ' less than ${k}$ steps.',
    'Note that {person} forgot how to {deed} {quality} {things}.',
    'For each of the {things}, the string ${s}$ tells which {quality} {thing2}' ' to {deed} first.',
)
_TASKS = (
    'Find the smallest number of {quality} {things} that {person} must {deed}.',
    'In how many ways can {person} {deed} the {things}? Print it modulo {p}.',
    'Determine whether all {quality} {things} can {deed} the {thing2}.',
    'Print the largest total of ${a}_i$ over {quality} {things} to {deed}.',
)
# As contests write it, in very many statements.
_FORMAT = (
    'The first line of the input contains a single integer ${n}$, the number of'
    ' {things}. The second line contains ${n}$ integers ${a}_1, {a}_2, \\ldots,'
    ' {a}_{n}$ ($1 \\leq {a}_i \\leq 10^{power}$). Output a single integer.'
)
_THOUGHTS = (
    'Okay, so I need to {deed} the {things} before the {thing2}.',
    'Wait, what if the {quality} {things} are {quality2}?',
    'Let me think about the {thing2} of size {p} again.',
    'Suppose that {n} is {p}; then {a}[{k}] would be the {quality} one.',
    'We could {deed} greedily, but {quality} {things} break it.',
    'A prefix sum over the {things} gives {p} in the {quality} example.',
    'Hmm, sorting by {a} makes the {quality} {thing2} come first.',
    'Therefore {person} never has to {deed} more than {p} {things}.',
    'Let me check that with {p} {quality} {things} and {k} {thing2}.',
)


def _fill(sentence: str, rng: random.Random) -> str:
  return sentence.format(
      person=rng.choice(_PEOPLE),
      things=rng.choice(_THINGS),
      thing2=rng.choice(_THINGS),
      quality=rng.choice(_QUALITIES),
      quality2=rng.choice(_QUALITIES),
      deed=rng.choice(_DEEDS),
      p=rng.randrange(2, 10_000),
      power=rng.randrange(3, 19),
      n='n',
      k='k',
      a='a',
      s='s',
  )


def statement(rng: random.Random) -> str:
  """A contest's problem: a story, a task, the usual words on the input."""
  story = rng.sample(_SENTENCES, rng.randrange(4, 8))
  return ' '.join(_fill(part, rng) for part in [*story, rng.choice(_TASKS), _FORMAT])


def reasoning(rng: random.Random, num_sentences: int = 40) -> str:
  """What a teacher thought."""
  return ' '.join(_fill(rng.choice(_THOUGHTS), rng) for _ in range(num_sentences))


def respaced(text: str, rng: random.Random) -> str:
  """The same words, with other white space."""
  gaps = [' ', '  ', '\n', '\t', ' \n', '\u00a0']
  return ''.join(word + rng.choice(gaps) for word in text.split())


def edited(text: str, rng: random.Random) -> str:
  """One word in a hundred is another one, and one at least."""
  words = text.split()
  for i in rng.sample(range(len(words)), max(1, len(words) // 100)):
    words[i] = rng.choice(_DEEDS).upper()
  return ' '.join(words)


def renamed(text: str, rng: random.Random) -> str:
  """Other variables, some of them words, and other limits."""
  new = rng.sample(['m', 'x', 'total', 'values', 'limit', 'text', 'b', 'size', 'q'], 4)
  names = dict(zip('nkas', new))
  text = re.sub(r'\b[nkas](?=\b|_)', lambda m: names[m[0]], text)
  return re.sub(r'\d{2,}', lambda m: str(int(m[0]) + 7), text)


def reformatted(text: str, rng: random.Random) -> str:
  """The same statement off a web page, in other quotes and signs."""
  text = text.replace('\\leq', '&le;').replace('\\ldots', '…')
  text = text.replace('$', '$$$').replace('. ', '.</p>\n<p>')
  return f'## Problem\n\n<p>{respaced(text, rng)}</p>'


_EDITS = (str, respaced, edited)


def _apply(edit: Callable, text: str, rng: random.Random) -> str:
  return text if edit is str else edit(text, rng)


@dataclasses.dataclass(frozen=True)
class Planted:
  """Lines of a file, and what is known of them, by trace id."""

  lines: Sequence[bytes]
  problems: Sequence[tuple[str, str]]  # Of the evaluation.
  repeated: dict[str, str]  # Trace -> the trace that it repeats.
  same_question: dict[str, str]  # Problem id -> the one that it repeats.
  contaminated: dict[str, tuple[str, str]]  # -> problem, how it was changed.
  malformed: set[int]  # Numbers of lines, from 1.


def _row(trace_id: str, problem_id: str, question: str, response: str) -> dict:
  return {
      'trace_id': trace_id,
      'problem_id': problem_id,
      'question': question,
      'response': response,
  }


def _half_new(text: str, new: str) -> str:
  """Every other sentence is that of another text."""
  pairs = zip(text.split('. '), new.split('. '))
  return '. '.join(pair[i % 2] for i, pair in enumerate(pairs))


def _sound(rng: random.Random, num_rows: int) -> list[dict]:
  """Rows of their own, of which some look much like an earlier one."""
  rows, questions = [], []
  for i in range(num_rows):
    kind = rng.random()
    response = reasoning(rng)
    if questions and kind < 0.4:  # One more trace of a question.
      problem, question = rng.choice(questions)
    else:
      problem, question = f'problem-{i}', statement(rng)
      if questions and kind < 0.5:
        question = _half_new(rng.choice(questions)[1], question)
      questions.append((problem, question))
    if rows and rng.random() < 0.1:
      response = _half_new(rng.choice(rows)['response'], response)
    rows.append(_row(f'sound-{i}', problem, question, response))
  return rows


def _repeats(rng: random.Random, rows: Sequence[dict], planted: Planted):
  """24 traces, of 3 edits, with their question or another; 16 questions."""
  for i, row in enumerate(rng.sample(rows, 24)):
    response = _apply(_EDITS[i % 3], row['response'], rng)
    problem, question = row['problem_id'], row['question']
    if i % 2:  # Another set gave the question a name and a form of its own.
      problem, question = f'other-{problem}', reformatted(question, rng)
      planted.same_question[problem] = row['problem_id']
    name = f'trace-{i}-{_EDITS[i % 3].__name__}'
    planted.repeated[name] = row['trace_id']
    yield row, _row(name, problem, question, response)
  edits = (*_EDITS, reformatted)
  for i, row in enumerate(rng.sample(rows, 16)):
    question = _apply(edits[i % 4], row['question'], rng)
    problem = f'other-{i}-{edits[i % 4].__name__}'
    planted.same_question[problem] = row['problem_id']
    yield row, _row(f'question-{i}', problem, question, reasoning(rng))


def _contaminated(rng: random.Random, planted: Planted):
  edits = (str, respaced, renamed, reformatted, renamed)
  for i, (problem_id, text) in enumerate(rng.sample(planted.problems, 25)):
    edit = edits[i % 5]
    planted.contaminated[f'leak-{i}'] = problem_id, edit.__name__
    text = _apply(edit, text, rng)
    yield _row(f'leak-{i}', f'leak-{i}', text, reasoning(rng))


def _malformed(rng: random.Random, rows: Sequence[dict]):
  """30 lines, of 10 kinds of damage."""
  for i, row in enumerate(rng.sample(rows, 30)):
    row = row | {'trace_id': f'bad-{i}'}
    line = json.dumps(row).encode()
    yield (
        line[: len(line) // 2],
        line.replace(b'"response": ', b'"respons": '),
        json.dumps(row | {'question': 7}).encode(),
        json.dumps(row | {'question': 'a\0b'}).encode(),
        json.dumps(row | {'problem_id': ''}).encode(),
        json.dumps([row]).encode(),
        line.replace(b'bad', b'bad\xff'),
        b'null',
        json.dumps(row | {'response': None}).encode(),
        line[:-1] + b', "no_such_field": 1}',
    )[i % 10]


def plant(seed: int) -> Planted:
  """Returns the rows of a seed, the same ones on any machine."""
  rng = random.Random(seed)
  problems = [(f'eval-{i}', statement(rng)) for i in range(NUM_PROBLEMS)]
  planted = Planted([], problems, {}, {}, {}, set())
  rows = _sound(rng, NUM_ROWS - 40 - 25 - 30)
  order = {row['trace_id']: float(i) for i, row in enumerate(rows)}
  placed = [(place, row) for place, row in zip(order.values(), rows)]
  for original, row in _repeats(rng, rows, planted):
    place = rng.uniform(order[original['trace_id']], len(rows))
    placed.append((place, row))
  for row in _contaminated(rng, planted):
    placed.append((rng.uniform(0, len(rows)), row))
  placed.sort(key=lambda pair: pair[0])
  lines = [json.dumps(row).encode() for _, row in placed]
  bad = sorted(rng.sample(range(NUM_ROWS), 30))
  for number, line in zip(bad, _malformed(rng, rows)):
    lines.insert(number, line)
  planted.malformed.update(number + 1 for number in bad)
  return dataclasses.replace(planted, lines=lines)
