"""Tables for a model with attention: heads and dims of one matrix are two groups, told apart."""

from __future__ import annotations

from tests.cli.conftest import Run

HEADS = ("tiny_net:Attention", "--input", "2x5x3")


def table(text: str) -> list[str]:
    return [line.rstrip() for line in text.splitlines()]


GROUPS = """
   group         channels  smallest step  tensors  shares channels with
0  embed.weight         8              1        8
1  q.weight            12              4        7                  2, 3
2  q.weight            12              3        4                     1
3  v.weight            15              3        3                     1
"""

SUMMARY = """
layer          writes           reads
embed          8 -> 4               -
q             12 -> 6          8 -> 4
k             12 -> 6          8 -> 4
v             15 -> 9          8 -> 4
out            8 -> 4         15 -> 9
head                -          8 -> 4
numbers in calls of a forward:
"""


def test_the_groups_of_attention_are_numbered_and_say_what_they_share(run: Run) -> None:
    assert GROUPS.strip("\n") in "\n".join(table(run("explain", *HEADS).out))


def test_a_model_without_attention_has_the_plain_table(run: Run) -> None:
    lines = table(run("explain", "tiny_net:Tiny", "--input", "2x3x8x8").out)
    assert lines[2].split() == ["group", "channels", "smallest", "step", "tensors"]


def test_the_json_says_which_groups_share_channels(run: Run) -> None:
    groups = run("explain", *HEADS, "q", "--json").data["groups"]
    known = {group["position"]: (group["name"], group["ranks"]) for group in groups}
    assert known == {0: ("embed.weight", 8), 1: ("q.weight", 3), 2: ("q.weight", 4)}
    assert {group["position"]: group["shares_channels_with"] for group in groups} == {
        0: [],
        1: [2, 3],
        2: [1],
    }


def test_the_summary_of_a_plan_counts_the_channels_that_heads_and_dims_leave(run: Run) -> None:
    out = run("plan", *HEADS, "--uniform", "0.5").out
    assert SUMMARY.strip("\n") in "\n".join(table(out))
