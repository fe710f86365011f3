"""Curates a corpus: the traces of hard questions that are farthest apart.

    python -m valley_jax.curate --config configs/distill.py --workdir RUN \\
        --config.shards=DATA/shards \\
        --config.curate.judgements=STUDENT/judgements.jsonl

These are stages 2 and 3 of *Beyond Scaling Law* (2508.09883).

Reads   config.shards (default RUN/shards)
        config.subsets, one of which is config.curate.pool: the traces to choose from, such as the
        right ones of one teacher, of at most 16k tokens
        config.curate.judgements  judgements of the student's own programs for the questions of the
        pool, by `sample` and `execute` before any training
Writes  RUN/curated/hard.json      every trace of the pool whose question the student solves at most
                                   at config.curate.max_pass_rate
        RUN/curated/farthest.json  for each such question, its config.curate.traces_per_question
                                   traces that are farthest apart
        RUN/curated/nearest.json   as many that are closest together: a control
        RUN/curated/choices.jsonl  the chosen traces, a question a line

Subsets read these files by {'ids': 'farthest.json'}. The control of random traces is a subset too:
{'ids': 'hard.json'}, {'per_question': 4} has as many traces of each question as farthest.json.

The distance is Levenshtein's over the longer length, of tokens or of characters
(config.curate.unit). The first trace of a question is its medoid or its longest one
(config.curate.start), and each further one is the farthest from those before it. Judgements that
failed (IE) do not count. A question of the pool without a judgement is an error, or is dropped and
counted with config.curate.unjudged=drop. Killed, the next run resumes at the first question that is
not done; run on a finished workdir, it does nothing.
"""

from valley_jax.runtime import entry

if __name__ == '__main__':
  entry.answer_help()  # Ahead of the imports below, which take seconds.

from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses
import hashlib
import pathlib
from typing import Annotated, Any, Literal

import ml_collections as mlc
import msgspec
import numpy as np

from valley_jax import errors
from valley_jax import jsonl
from valley_jax import records
from valley_jax.data.shards import shards as shards_lib
from valley_jax.data.subsets import corpus
from valley_jax.data.subsets import curation
from valley_jax.data.subsets import selections
from valley_jax.data.tokens import tokenization
from valley_jax.runtime import config_groups
from valley_jax.runtime import metrics
from valley_jax.runtime import storage


@dataclasses.dataclass(frozen=True, kw_only=True)
class CurateSettings:
  """The group config.curate."""

  judgements: str
  pool: str
  max_pass_rate: float
  unjudged: Literal['refuse', 'drop']
  traces_per_question: Annotated[int, msgspec.Meta(ge=1, description='1 or more')]
  unit: Literal['tokens', 'characters']
  start: Literal['medoid', 'longest']

  @classmethod
  def from_config(cls, group: Mapping[str, Any]) -> 'CurateSettings':
    """Returns the settings of the group config.curate.

    Raises:
      UserError: a value is out of range or unknown, or there is no file of judgements.
    """
    curate_settings = config_groups.convert_group(group, 'curate', cls)
    if not pathlib.Path(curate_settings.judgements).is_file():
      raise errors.UserError(
          f'curate.judgements={curate_settings.judgements!r} is no file; let the student `sample`'
          ' the questions and `execute` its programs, and name the judgements.jsonl of that.'
      )
    return curate_settings


class Choice(records.Record):
  """The traces chosen for a question, in the order of choice."""

  problem_id: str
  farthest: tuple[str, ...]
  nearest: tuple[str, ...]


def _select_hard(
    settings: CurateSettings, table: shards_lib.TraceTable, pool: Sequence[int]
) -> tuple[list[int], dict[str, int]]:
  """Returns the rows of the pool whose questions are hard, and counts of questions."""
  judgements = jsonl.read_rows(settings.judgements, records.Judgement)
  rates = curation.compute_pass_rates(judgements)
  questions = sorted({table.problem_ids[row] for row in pool})
  unjudged = [name for name in questions if name not in rates]
  if unjudged and settings.unjudged == 'refuse':
    raise errors.UserError(
        f'{len(unjudged):,} of the {len(questions):,} questions, such as {unjudged[0]!r}, have no'
        f' judgement in {settings.judgements}; sample and execute them too, or say'
        ' curate.unjudged=drop.'
    )
  hard = {q for q in questions if rates.get(q, np.inf) <= settings.max_pass_rate}
  if not hard:
    raise errors.UserError(
        f'None of the {len(questions):,} questions is solved as seldom as'
        f' curate.max_pass_rate={settings.max_pass_rate}; raise it.'
    )
  counts = {
      'questions': len(questions),
      'questions_unjudged': len(unjudged),
      'questions_too_easy': len(questions) - len(unjudged) - len(hard),
  }
  return [row for row in pool if table.problem_ids[row] in hard], counts


def read_responses(
    shards: shards_lib.Shards, rows: Sequence[int], tokenizer: tokenization.Tokenizer | None
) -> list[str]:
  """Returns the responses as text, or with one character a token if there is no tokenizer."""
  responses = [e.tokens[e.weights > 0] for e in shards.read_examples(rows)]
  if tokenizer is None:
    return [curation.tokens_as_text(tokens) for tokens in responses]
  return [str(tokenizer.decode(tokens, skip_special_tokens=True)) for tokens in responses]


def _choose_by_question(
    settings: CurateSettings,
    shards: shards_lib.Shards,
    table: shards_lib.TraceTable,
    rows: Sequence[int],
    path: pathlib.Path,
    num_workers: int,
) -> list[Choice]:
  """Chooses traces question by question, and resumes at the first question that is not done."""
  tokenizer = None
  if settings.unit == 'characters':
    tokenizer = tokenization.load_tokenizer(shards.directory / 'tokenizer')
  questions: dict[str, list[int]] = {}
  for row in sorted(rows, key=lambda row: table.ids[row]):
    questions.setdefault(table.problem_ids[row], []).append(row)
  # Opened first, since the appender cuts off a torn last line that reading would refuse.
  with jsonl.Appender(path) as appender:
    done = {choice.problem_id: choice for choice in jsonl.read_rows(path, Choice)}
    with metrics.progress(len(questions), 'question', 'curate') as bar:
      for name in sorted(questions):
        bar.update()
        if name in done:
          continue
        own_rows = questions[name]
        far, near = curation.choose_traces(
            [table.ids[row] for row in own_rows],
            read_responses(shards, own_rows, tokenizer),
            settings.traces_per_question,
            start=settings.start,
            workers=num_workers or -1,
        )
        done[name] = Choice(problem_id=name, farthest=tuple(far), nearest=tuple(near))
        appender.append(done[name])
  return [done[name] for name in sorted(questions)]


def _refuse_file(path: str) -> Sequence[str]:
  raise errors.UserError(
      f'it takes its ids from {path}, which curate has yet to write; let curate.pool name a subset'
      ' without files.'
  )


def curate(config: mlc.ConfigDict, workdir: str) -> None:
  """Writes <workdir>/curated; see the module's docstring."""
  settings = CurateSettings.from_config(config.curate)
  shards = shards_lib.Shards(config.shards or f'{workdir}/shards')
  table = shards.read_table()
  subsets = config.subsets.to_dict()
  pool: list[int] = selections.select_rows(
      table, subsets, settings.pool, seed=config.seed, read_ids=_refuse_file
  ).tolist()
  directory = pathlib.Path(workdir) / 'curated'
  # What the choices depend on.
  claimed = {
      **config.curate.to_dict(),
      'judgements_sha256': hashlib.sha256(
          pathlib.Path(settings.judgements).read_bytes()
      ).hexdigest(),
      'pool_sha256': shards_lib.hash_ids(table.ids[row] for row in pool),
      'tokenizer_sha256': shards.manifest['tokenizer_sha256'],
      'template_sha256': shards.manifest['template_sha256'],
  }
  storage.claim_directory(directory / 'settings.json', claimed)
  hard, counts = _select_hard(settings, table, pool)
  path = directory / 'choices.jsonl'
  choices = _choose_by_question(settings, shards, table, hard, path, config.num_workers)
  row_of = {table.ids[row]: row for row in hard}
  curated = {
      'hard': hard,
      'farthest': [row_of[i] for choice in choices for i in choice.farthest],
      'nearest': [row_of[i] for choice in choices for i in choice.nearest],
  }
  for name, rows in curated.items():
    manifest = corpus.build_subset_manifest(table, rows, subset=name, **claimed, **counts)
    path = directory / f'{name}.json'
    if not path.exists() or jsonl.read_json(path) != manifest:
      jsonl.write_json(path, manifest)
  print(
      f'curate: {len(pool):,} traces of {counts["questions"]:,} questions; {len(choices):,}'
      f' questions are hard, with {len(hard):,} traces; {len(curated["farthest"]):,} of these are'
      ' far apart.'
  )


if __name__ == '__main__':
  entry.run(curate)
