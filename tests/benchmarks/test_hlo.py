"""Exchanges are counted in compiled programs as compilers write them."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import hlo

LOOP = """HloModule loop
%body (p: (s32[], f32[8])) -> (s32[], f32[8]) {
  %p = (s32[], f32[8]) parameter(0)
  %x = f32[8]{0} get-tuple-element(%p), index=1
  %sum = f32[8]{0} all-reduce(%x), channel_id=1, to_apply=%add
  ROOT %out = (s32[], f32[8]) tuple(%i, %sum)
}
%condition (p: (s32[], f32[8])) -> pred[] {
  %p = (s32[], f32[8]) parameter(0)
  %limit = s32[]{:T(128)} constant(28)
  %i = s32[]{:T(128)} get-tuple-element(%p), index=0
  ROOT %lt = pred[]{:T(512)} compare(%i, %limit), direction=LT
}
ENTRY %main (a: (s32[], f32[8])) -> (s32[], f32[8]) {
  %a = (s32[], f32[8]) parameter(0)
  ROOT %w = (s32[], f32[8]) while(%a), condition=%condition, body=%bodyKNOWN
}
"""
PIECES = """HloModule pieces
%start (x: bf16[4,8]) -> bf16[8,8] {
  %x = bf16[4,8]{1,0} parameter(0)
  ROOT %g = bf16[8,8]{1,0} all-gather(%x), channel_id=7, attributes={chain_id="0"}
}
%meanwhile (x: bf16[4,8]) -> bf16[8,8] {
  %x = bf16[4,8]{1,0} parameter(0)
  ROOT %g = bf16[8,8]{1,0} all-gather(%x), channel_id=7, attributes={chain_id="0"}
}
ENTRY %main (x: bf16[4,8]) -> bf16[8,8] {
  %x = bf16[4,8]{1,0} parameter(0)
  %s = bf16[8,8]{1,0} fusion(%x), kind=kCustom, calls=%start
  %m = bf16[8,8]{1,0} fusion(%x), kind=kCustom, calls=%meanwhile
  ROOT %other = bf16[8,8]{1,0} all-gather(%x), channel_id=8
}
"""


def test_a_loop_counts_as_often_as_it_runs():
    """28 by its condition, as for TPUs, or by what the compiler says that it knows."""
    known = ', backend_config={"known_trip_count":{"n":"3"}}'
    for text, times in (("", 28), (known, 3)):
        found = hlo.collectives(LOOP.replace("KNOWN", text))
        assert found == {"all-reduce": {"count": times, "bytes": times * 32}}


def test_a_loop_whose_end_is_not_known_counts_once():
    """As decoding, which ends when every row has."""
    text = LOOP.replace("KNOWN", "").replace("constant(28)", "parameter(1)")
    assert hlo.collectives(text)["all-reduce"]["count"] == 1


def test_an_exchange_spread_over_fusions_is_one():
    assert hlo.collectives(PIECES) == {"all-gather": {"count": 2, "bytes": 256}}
