"""Rules and their fields."""

from __future__ import annotations

from videollm.convert.keymap import Drop, Place, Split, Stack, Take, find, under

RULES = (
    Drop("blocks.2.{rest}", "too many"),
    Take("blocks.{n}.norm{n1}.{p}", "layers.{n}.layer_norm{n1}.{p}"),
    Stack(("blocks.{n}.q_bias", None, "blocks.{n}.v_bias"), "layers.{n}.bias"),
)


def test_fields_go_into_the_target() -> None:
    assert find(RULES, "blocks.11.norm1.weight") == Place("layers.11.layer_norm1.weight", ("blocks.11.norm1.weight",))


def test_every_part_of_a_stack_names_the_others() -> None:
    place = Place("layers.0.bias", ("blocks.0.q_bias", None, "blocks.0.v_bias"))
    assert find(RULES, "blocks.0.q_bias") == find(RULES, "blocks.0.v_bias") == place


def test_the_first_rule_counts() -> None:
    assert find(RULES, "blocks.2.norm1.weight") == RULES[0]


def test_a_rule_matches_a_whole_key_only() -> None:
    for key in ("blocks.x.norm1.weight", "blocks.1.norm1.weight.more", "my.blocks.1.norm1.weight", "blocks.1.norm1"):
        assert find(RULES, key) is None
    # Signs of regular expressions are just signs.
    assert find(RULES, "blocks_1.norm1.weight") is None


def test_under_a_prefix() -> None:
    moved = under("eye.", RULES)
    assert find(moved, "eye.blocks.1.v_bias") == Place(
        "layers.1.bias", ("eye.blocks.1.q_bias", None, "eye.blocks.1.v_bias")
    )
    assert isinstance(find(moved, "eye.blocks.2.any.thing"), Drop) and find(moved, "blocks.1.v_bias") is None


def test_one_key_for_several_parameters_and_a_transposed_one() -> None:
    rules = under("net.", (Split("{n}.qkv_{p}", ("{n}.q.{p}", "{n}.k.{p}")), Take("matrix", "linear", transposed=True)))
    assert find(rules, "net.3.qkv_bias") == Place("3.q.bias", ("net.3.qkv_bias",), ("3.k.bias",))
    assert find(rules, "net.matrix") == Place("linear", ("net.matrix",), transposed=True)
