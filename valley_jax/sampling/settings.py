"""How samples are drawn, and which server draws them: config.sample as values."""

import dataclasses
from typing import Any

import ml_collections as mlc

from valley_jax import errors
from valley_jax.sampling import methods
from valley_jax.sampling import samples as samples_lib


@dataclasses.dataclass(frozen=True, kw_only=True)
class SampleSettings:
  """How samples are drawn.

  Attributes:
    seed: Seed of all samples; each folds its problem and index into it.
    method: Method that draws the next token.
    max_new_tokens: Tokens at which a sample is truncated.
    stop: Strings that end a sample.
    stop_after: Stop strings count only after this one; '' counts them from the start.
    loop_tokens: Tokens at the end of a sample that are checked for a loop; 0: never.
    dtype: Name of the type of computation and cache.
    tp: Devices that the heads are split over.
    stages: Positions of the slots of all stages but the last.
    num_slots: Slots of the first stage; 0: as many as fit the memory.
    chunk_len: Decoding steps on the device between two looks of the host.
    prefill_tokens: Tokens of one prefill call, padding included.
  """

  seed: int
  method: methods.Method
  max_new_tokens: int
  stop: tuple[str, ...]
  stop_after: str
  loop_tokens: int
  dtype: str
  tp: int
  stages: tuple[int, ...]
  num_slots: int
  chunk_len: int
  prefill_tokens: int

  @classmethod
  def from_config(cls, sample: mlc.ConfigDict, seed: int) -> 'SampleSettings':
    """Returns the settings of `config.sample`.

    Raises:
      UserError: the temperature or a filter is out of range.
    """
    names = {field.name for field in dataclasses.fields(cls)} - {'seed', 'method'}
    method = methods.make_method(sample.temperature, sample.top_p, sample.top_k, sample.min_p)
    fields: dict[str, Any] = {name: sample[name] for name in names}
    fields |= {'stop': tuple(sample.stop), 'stages': tuple(sample.stages)}
    return cls(seed=seed, method=method, **fields)

  def make_stops(self, tokenizer: Any) -> samples_lib.Stops:
    """Returns what ends a sample besides its end token and its length.

    Raises:
      UserError: a stop string is empty, or `loop_tokens` is out of range.
    """
    return samples_lib.Stops(
        decode=lambda tokens: str(tokenizer.decode(tokens)),
        strings=self.stop,
        after=self.stop_after,
        loop_tokens=self.loop_tokens,
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class ServerSettings:
  """A server that draws samples in place of the engine.

  Attributes:
    url: Address of the API, such as http://HOST:8000/v1.
    model: The model's name on the server; '' takes the only one.
    seeded: Whether each request gets a seed, where the server takes seeds.
    concurrency: Requests in flight at a time.
    timeout_seconds: Time limit of one sample.
    retries: Number of repeats of a failed request before the run ends.
  """

  url: str
  model: str
  seeded: bool
  concurrency: int
  timeout_seconds: float
  retries: int

  def __post_init__(self):
    if not self.url.startswith(('http://', 'https://')):
      raise errors.UserError(
          f'sample.server={self.url!r} is not an address; write one like http://HOST:8000/v1.'
      )
    if self.concurrency < 1 or self.retries < 0 or self.timeout_seconds <= 0:
      raise errors.UserError(
          f'sample.concurrency={self.concurrency}, retries={self.retries}, timeout_seconds='
          f'{self.timeout_seconds}: they must be at least 1, at least 0, and above 0.'
      )

  @classmethod
  def from_config(cls, sample: mlc.ConfigDict) -> 'ServerSettings':
    """Returns the settings of `config.sample`.

    Raises:
      UserError: the address or a number is out of range.
    """
    names = ('model', 'seeded', 'concurrency', 'timeout_seconds', 'retries')
    return cls(url=sample.server, **{name: sample[name] for name in names})
