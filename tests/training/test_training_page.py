"""docs/training.md names all that there is."""

import pathlib

import pytest

from valley_jax.models import attention
from valley_jax.models import transformer
from valley_jax.runtime import partitioning
from valley_jax.training import optimizer

PAGE = pathlib.Path(__file__).parents[2] / 'docs' / 'training.md'


@pytest.mark.parametrize(
    'names',
    [
        partitioning.AXES,
        attention.IMPLEMENTATIONS,
        transformer.REMAT_POLICIES,
        optimizer.OPTIMIZERS,
    ],
    ids=['axes', 'attention', 'remat', 'optimisers'],
)
def test_the_page_names_every_choice(names):
  page = PAGE.read_text()
  assert not [name for name in names if f'`{name}`' not in page]
