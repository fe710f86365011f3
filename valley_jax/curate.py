"""Curates a corpus: of hard questions the traces that are farthest apart.

    python -m valley_jax.curate --config configs/distill.py --workdir RUN \\
        --config.shards=DATA/shards \\
        --config.curate.judgements=STUDENT/judgements.jsonl

These are stages 2 and 3 of *Beyond Scaling Law* (2508.09883).

Reads   config.shards (default RUN/shards)
        config.subsets, of them config.curate.pool: the traces to choose from,
        such as the right ones of one teacher, of at most 16k tokens
        config.curate.judgements  of the student's own programs for the
        questions of the pool, by `sample` and `execute` before any training
Writes  RUN/curated/hard.json      every trace of the pool whose question the
                                   student solves at most at
                                   config.curate.max_pass_rate
        RUN/curated/farthest.json  of each such question its
                                   config.curate.traces_per_question traces
                                   that are farthest apart
        RUN/curated/nearest.json   as many that are closest together: a control
        RUN/curated/choices.jsonl  what was chosen, a question a line

Subsets read these files by {'ids': 'farthest.json'}. The control of random
traces is a subset too: {'ids': 'hard.json'}, {'per_question': 4} has as many of
each question as farthest.json.

Distance is Levenshtein's over the longer's length, of tokens or of characters
(config.curate.unit); the first trace of a question is its medoid or its longest
one (config.curate.start), and each further one the farthest from those before.
A judgement that failed (IE) is none. A question of the pool without a judgement
is an error, or with config.curate.unjudged=drop dropped and counted. Killed, it
goes on at the first question that is not done; finished, it does nothing.
"""

from valley_jax.runtime import entry

if __name__ == '__main__':
  entry.answer_help()  # Ahead of the imports below, which take seconds.

from collections.abc import Sequence
import hashlib
import pathlib
from typing import Any

import ml_collections as mlc
import numpy as np

from valley_jax import errors
from valley_jax import jsonl
from valley_jax import records
from valley_jax.data.shards import shards as shards_lib
from valley_jax.data.shards import table as table_lib
from valley_jax.data.subsets import corpus
from valley_jax.data.subsets import curation
from valley_jax.data.subsets import selections
from valley_jax.data.tokens import tokenization
from valley_jax.runtime import locks
from valley_jax.runtime import metrics


class Choice(records.Record):
  """What was chosen of a question's traces, in the order of choice."""

  problem_id: str
  farthest: tuple[str, ...]
  nearest: tuple[str, ...]


def _check(config: mlc.ConfigDict) -> None:
  c = config.curate
  for name, known in (('unit', ('tokens', 'characters')), ('unjudged', ('refuse', 'drop'))):
    if c[name] not in known:
      raise errors.UserError(f'curate.{name}={c[name]!r}: want one of {known}.')
  if c.traces_per_question < 1:
    raise errors.UserError(f'curate.traces_per_question={c.traces_per_question}: want 1 or more.')
  if not pathlib.Path(c.judgements).is_file():
    raise errors.UserError(
        f'curate.judgements={c.judgements!r} is no file; let the student'
        ' `sample` the questions and `execute` its programs, and name the'
        ' judgements.jsonl of that.'
    )


def _hard(
    config: mlc.ConfigDict, table: table_lib.Table, pool: Sequence[int]
) -> tuple[list[int], dict[str, int]]:
  """Returns the traces of hard questions, and counts of questions."""
  c = config.curate
  rows = jsonl.read_rows(c.judgements, records.Judgement)
  rates = curation.pass_rates(rows)
  questions = sorted({table.problem_ids[row] for row in pool})
  unjudged = [name for name in questions if name not in rates]
  if unjudged and c.unjudged == 'refuse':
    raise errors.UserError(
        f'{len(unjudged):,} of the {len(questions):,} questions, such as'
        f' {unjudged[0]!r}, have no judgement in {c.judgements}; sample and'
        ' execute them too, or say curate.unjudged=drop.'
    )
  hard = {q for q in questions if rates.get(q, np.inf) <= c.max_pass_rate}
  if not hard:
    raise errors.UserError(
        f'None of the {len(questions):,} questions is solved as seldom as'
        f' curate.max_pass_rate={c.max_pass_rate}; raise it.'
    )
  counts = {
      'questions': len(questions),
      'questions_unjudged': len(unjudged),
      'questions_too_easy': len(questions) - len(unjudged) - len(hard),
  }
  return [row for row in pool if table.problem_ids[row] in hard], counts


def _texts(
    shards: shards_lib.Shards, rows: Sequence[int], tokenizer: tokenization.Tokenizer | None
) -> list[str]:
  """Returns the responses: in characters, or one character a token."""
  tokens = [e.tokens[e.weights > 0] for e in shards.read_examples(rows)]
  if tokenizer is None:
    return [curation.as_text(t) for t in tokens]
  return [str(tokenizer.decode(t, skip_special_tokens=True)) for t in tokens]


def _choose(
    config: mlc.ConfigDict,
    shards: shards_lib.Shards,
    table: table_lib.Table,
    rows: Sequence[int],
    path: pathlib.Path,
) -> list[Choice]:
  """Chooses question by question, and goes on where it was."""
  c = config.curate
  tokenizer = None
  if c.unit == 'characters':
    tokenizer = tokenization.load_tokenizer(shards.directory / 'tokenizer')
  questions: dict[str, list[int]] = {}
  for row in sorted(rows, key=lambda row: table.ids[row]):
    questions.setdefault(table.problem_ids[row], []).append(row)
  with jsonl.Appender(path) as appender:
    done = {x.problem_id: x for x in jsonl.read_rows(path, Choice)}
    with metrics.progress(len(questions), 'question', 'curate') as bar:
      for name in sorted(questions):
        bar.update()
        if name in done:
          continue
        of_it = questions[name]
        far, near = curation.choose(
            [table.ids[row] for row in of_it],
            _texts(shards, of_it, tokenizer),
            c.traces_per_question,
            start=c.start,
            workers=config.num_workers or -1,
        )
        done[name] = Choice(problem_id=name, farthest=tuple(far), nearest=tuple(near))
        appender.append(done[name])
  return [done[name] for name in sorted(questions)]


def _settings(
    config: mlc.ConfigDict, shards: shards_lib.Shards, table: table_lib.Table, pool: Sequence[int]
) -> dict[str, Any]:
  """Returns what the choices depend on."""
  data = pathlib.Path(config.curate.judgements).read_bytes()
  return {
      **config.curate.to_dict(),
      'judgements_sha256': hashlib.sha256(data).hexdigest(),
      'pool_sha256': corpus.sha256([table.ids[row] for row in pool]),
      'tokenizer_sha256': shards.manifest['tokenizer_sha256'],
      'template_sha256': shards.manifest['template_sha256'],
  }


def _refuse(path: str) -> Sequence[str]:
  raise errors.UserError(
      f'it takes its ids from {path}, which is yet to be written here; let'
      ' curate.pool name a subset without files.'
  )


def curate(config: mlc.ConfigDict, workdir: str) -> None:
  """Writes <workdir>/curated; see the module's docstring."""
  _check(config)
  shards = shards_lib.Shards(config.shards or f'{workdir}/shards')
  table = shards.read_table()
  pool = selections.evaluate(
      table, config.subsets.to_dict(), config.curate.pool, seed=config.seed, read_ids=_refuse
  ).tolist()
  directory = pathlib.Path(workdir) / 'curated'
  settings = _settings(config, shards, table, pool)
  locks.claim_directory(directory / 'settings.json', settings)
  hard, counts = _hard(config, table, pool)
  choices = _choose(config, shards, table, hard, directory / 'choices.jsonl')
  row_of = {table.ids[row]: row for row in hard}
  subsets = {
      'hard': hard,
      'farthest': [row_of[i] for choice in choices for i in choice.farthest],
      'nearest': [row_of[i] for choice in choices for i in choice.nearest],
  }
  for name, rows in subsets.items():
    made = corpus.manifest(table, rows, subset=name, **settings, **counts)
    path = directory / f'{name}.json'
    if not path.exists() or jsonl.read_json(path) != made:
      jsonl.write_json(path, made)
  print(
      f'curate: {len(pool):,} traces of {counts["questions"]:,} questions;'
      f' {len(choices):,} questions are hard, with {len(hard):,} traces;'
      f' {len(subsets["farthest"]):,} of these are far apart.'
  )


if __name__ == '__main__':
  entry.run(curate)
