"""What a sampling run prints and shows of its samples."""

from tensorboard.backend.event_processing import event_accumulator

from valley_jax import records
from valley_jax.sampling import output


def _row(index, num_tokens, reason=records.FinishReason.EOS):
  return records.Completion(
      problem_id='p',
      sample_index=index,
      text=f'text {index}',
      tokens=(1,) * num_tokens,
      num_prompt_tokens=3,
      finish_reason=reason,
      log_prob=0.0,
      log_prob_tempered=0.0,
      prompt_sha256='',
  )


def _bins(text):
  """Returns (first, last, count) of each line."""
  lines = [line.split() for line in text.splitlines()]
  return [(int(x[0]), int(x[2]), int(x[-1])) for x in lines]


def test_a_histogram_counts_every_sample_where_it_says():
  lengths = [1, 1, 2, 3, 5, 8, 13, 21, 34, 55, 55, 89]
  bins = _bins(output.draw_histogram(lengths))
  for first, last, count in bins:
    assert sum(first <= n <= last for n in lengths) == count
  assert sum(count for *_, count in bins) == len(lengths)
  assert (bins[0][0], bins[-1][1]) == (1, 89)


def test_samples_of_one_length_are_one_bar():
  assert _bins(output.draw_histogram([7, 7, 7])) == [(7, 7, 3)]


def test_a_summary_counts_what_was_cut_off():
  length, loop = records.FinishReason.LENGTH, records.FinishReason.LOOP
  line = output.summarize_samples([_row(0, 5), _row(1, 9, length), _row(2, 9, loop)])
  assert '3 completions, 1 truncated, 1 cut off in a loop' in line
  assert '0 completions' in output.summarize_samples([])


def test_tensorboard_has_the_lengths_and_some_texts(tmp_path):
  output.write_tensorboard(tmp_path, [_row(i, 3 + i) for i in range(40)])
  reader = event_accumulator.EventAccumulator(str(tmp_path / 'tensorboard'))
  reader.Reload()
  (lengths,) = reader.Histograms('sample/tokens')
  assert lengths.histogram_value.num == 40
  assert (lengths.histogram_value.min, lengths.histogram_value.max) == (3, 42)
  texts = [tag for tag in reader.Tags()['tensors'] if tag.startswith('sample/')]
  assert len(texts) == 8
  (event,) = reader.Tensors('sample/p/0/text_summary')
  assert b'text 0' in event.tensor_proto.string_val[0]
