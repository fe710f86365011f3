"""What travels is read from a module's text, loops and groups included."""

import functools

import jax
import jax.numpy as jnp
import pytest

from valley_jax.planning import collectives

MESH = {'data': 2, 'fsdp': 4}

# Layers of a scan gather 1,024 bf16 four times over three steps; the gather is
# spread over two computations that share a channel.
HLO = """\
HloModule jit_f

%start (p: bf16[2,128]) -> bf16[8,128] {
  %p = bf16[2,128]{1,0} parameter(0)
  ROOT %all-gather.1 = bf16[8,128]{1,0} all-gather(%p), channel_id=7, GROUPS
}

%done (p: bf16[2,128]) -> bf16[8,128] {
  %p = bf16[2,128]{1,0} parameter(0)
  ROOT %all-gather.2 = bf16[8,128]{1,0} all-gather(%p), channel_id=7, GROUPS
}

%body (x: (s32[], bf16[2,128])) -> (s32[], bf16[2,128]) {
  %a = bf16[8,128]{1,0} fusion(%x), kind=kCustom, calls=%start
  ROOT %b = bf16[8,128]{1,0} fusion(%x), kind=kCustom, calls=%done
}

%all-reduce-scatter.3 (g: f32[64]) -> f32[16] {
  ROOT %all-reduce.9 = f32[64]{0} all-reduce(%g), channel_id=9, GROUPS
}

ENTRY %main (x: f32[]) -> f32[] {
  %w = (s32[]) while(%t), condition=%c, body=%body, \
backend_config={"known_trip_count":{"n":"3"}}
  %g = f32[16]{0} fusion(%x), kind=kCustom, calls=%all-reduce-scatter.3
  %s = (f32[10]{0}, f32[10]{0}) all-reduce-start(%x), channel_id=3, \
replica_groups={{0,4},{1,5},{2,6},{3,7}}
  ROOT %p = s8[6]{0} collective-permute(%x), channel_id=4, \
source_target_pairs={{0,1},{1,2},{2,3},{3,0}}
}
"""


@pytest.mark.parametrize(
    'groups',
    [
        'replica_groups={{0,1,2,3},{4,5,6,7}}',
        'replica_groups=[2,4]<=[8]',
        "replica_groups=mesh['data'=2,'fsdp'=4] {'fsdp'}, dimensions={1}",
        "replica_groups=mesh['a'=8] {'a':(2)4}",
        "replica_groups=mesh['a'=4,'b'=2], device_ids=([2,4]T(1,0)) {'a'}",
    ],
)
def test_bytes_are_summed_by_axis_over_loops_and_channels(groups):
  found = collectives.read(HLO.replace('GROUPS', groups), MESH)
  assert collectives.by_axes(found) == {
      # 3 gathers of 2,048 bytes, of which a device has a quarter; a scatter
      # of 64 floats; 6 bytes passed on.
      ('fsdp',): 3 * 2048 * 3 / 4 + 256 * 3 / 4 + 6,
      ('data',): 40 * 2 / 2,  # To and fro between two.
  }


@pytest.mark.parametrize(
    'groups, axes',
    [
        ('replica_groups=[4,2]<=[2,4]T(1,0)', ('data',)),
        ("replica_groups=mesh['a'=8] {'a':(1)2}", ('data',)),
        ('replica_groups={}', ('data', 'fsdp')),
        ('replica_groups=[1,8]<=[8]', ('data', 'fsdp')),
    ],
)
def test_groups_name_the_axes_they_lie_along(groups, axes):
  found = collectives.read(HLO.replace('GROUPS', groups), MESH)
  [gather] = [c for c in found if c.op == 'all-gather']
  assert gather.axes == axes


_COUNTED = 'backend_config={"known_trip_count":{"n":"3"}}'
_CONDITION = """\
%c (x: (s32[], bf16[2,128])) -> pred[] {
  %n = s32[]{:T(128)} constant(3)
  %i = s32[]{:T(128)} get-tuple-element(%x), index=0
  ROOT %lt = pred[]{:T(512)} compare(%i, %n), direction=LT
}

ENTRY"""


def test_a_loop_counts_as_often_as_its_condition_allows():
  hlo = HLO.replace('GROUPS', 'replica_groups=[2,4]<=[8]')
  on_tpu = hlo.replace(_COUNTED, 'x=1').replace('ENTRY', _CONDITION)
  assert collectives.read(on_tpu, MESH) == collectives.read(hlo, MESH)


def test_a_loop_without_a_known_end_counts_as_often_as_it_may():
  hlo = HLO.replace('GROUPS', 'replica_groups=[2,4]<=[8]')
  dynamic = hlo.replace(_COUNTED, 'x=1').replace('ENTRY', _CONDITION)
  dynamic = dynamic.replace('constant(3)', 'get-tuple-element(%x), index=1')
  found = collectives.read(dynamic, MESH, unknown_trips=3)
  assert found == collectives.read(hlo, MESH)


def test_what_comes_behind_the_text_of_a_kernel_is_read():
  hlo = HLO.replace('GROUPS', 'replica_groups=[2,4]<=[8]')
  kernel = '  %k = f32[] custom-call(%x), backend_config={"a": "{\n}\n"}\n'
  after = hlo.replace('  %a = bf16', kernel + '  %a = bf16')
  assert '\n}\n"}' in after
  assert collectives.read(after, MESH) == collectives.read(hlo, MESH)


def test_groups_of_one_device_move_nothing():
  hlo = HLO.replace('GROUPS', 'replica_groups={{0},{1},{2},{3}}')
  assert not [c for c in collectives.read(hlo, MESH) if c.op == 'all-gather']


def test_a_form_of_groups_that_is_unknown_is_an_error():
  with pytest.raises(ValueError, match='whatever.*_group'):
    collectives.read(HLO.replace('GROUPS', 'groups=whatever'), MESH)


def test_a_compiled_scan_of_gathers_is_counted():
  explicit = (jax.sharding.AxisType.Explicit,) * 2
  mesh = jax.make_mesh((2, 4), ('data', 'fsdp'), explicit)
  with jax.set_mesh(mesh):

    @jax.jit
    def f(x, ws):
      def layer(x, w):
        w = jax.sharding.reshard(w, jax.P(None, None))
        return jnp.tanh(x @ w), None

      return jax.lax.scan(layer, x, ws)[0]

    shape = functools.partial(jax.ShapeDtypeStruct, dtype=jnp.float32)
    place = functools.partial(jax.NamedSharding, mesh)
    x = shape((8, 64), sharding=place(jax.P('data', None)))
    ws = shape((5, 64, 64), sharding=place(jax.P(None, 'fsdp', None)))
    compiled = f.lower(x, ws).compile()
  found = collectives.read(compiled.as_text(), mesh.shape)
  assert collectives.by_axes(found) == {('fsdp',): 5 * 64 * 64 * 4 * 3 / 4}
