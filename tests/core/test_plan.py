from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path

import pytest
import torch
from torch import nn

from compressor.core.capture import capture
from compressor.core.graph import Graph
from compressor.core.plan import Cut, Patch, PatchValue, Plan, Signature, Size
from compressor.core.surgery import apply
from compressor.errors import FileError, PlanError, PlanMismatchError

BEFORE = Signature("Net", (("a.weight", (6, 3)), ("b.weight", (6, 2)), ("c.weight", (2, 6))))


def example() -> Plan:
    cuts = (
        Cut("a.weight", 0, 6, (0, 2, 5), "writer"),
        Cut("c.weight", 1, 6, (0, 2, 5), "reader"),
        Cut("b.weight", 1, 6, (0, 3, 5), "reader", 3),
    )
    return Plan(cuts, (Size("a", "out_features", 6, 3), Size("", "shape", (6, 1), (3, 1))), BEFORE, "half")


def net() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 8, 3),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 4, 3),
        nn.Flatten(),
        nn.Linear(64, 5),
    )


def capture_net(model: nn.Module) -> Graph:
    return capture(model.eval(), torch.randn(1, 3, 8, 8))


def plan_without(graph: Graph, *removed: int) -> Plan:
    mask = torch.zeros(graph.n_units, dtype=torch.bool)
    mask[list(removed)] = True
    return graph.plan(mask.numpy())


# -- reading -------------------------------------------------------------------------------------


def test_a_plan_prints_every_cut_and_size() -> None:
    assert str(example()) == (
        "Plan for Net: 3 cuts, 2 sizes\n"
        "  a.weight axis 0: 6 -> 3 (writer)\n"
        "  c.weight axis 1: 6 -> 3 (reader)\n"
        "  b.weight axis 1 in 3 blocks: 6 -> 3 (reader)\n"
        "  a.out_features: 6 -> 3\n"
        "  shape: (6, 1) -> (3, 1)"
    )


def test_a_summary_has_one_row_for_each_layer() -> None:
    assert example().summary() == (
        "layer          writes           reads\n"
        "a              6 -> 3               -\n"
        "c                   -          6 -> 3\n"
        "b                   -          6 -> 3"
    )


def test_removed_is_what_is_not_kept() -> None:
    assert Cut("w", 0, 6, (4, 0), "writer").removed == (1, 2, 3, 5)


def test_result_is_the_signature_of_the_cut_model() -> None:
    expected = (("a.weight", (3, 3)), ("b.weight", (6, 1)), ("c.weight", (2, 3)))
    assert example().result == Signature("Net", expected)


def test_diff_names_every_axis_that_differs() -> None:
    mine = Plan((Cut("a.weight", 0, 6, (0, 1), "writer"), Cut("c.weight", 1, 6, (0,), "reader")), (), BEFORE)
    other = Plan((Cut("a.weight", 0, 6, (1, 2), "writer"),), (Size("a", "n", 6, 2),), BEFORE)
    assert mine.diff(other) == (
        "a.weight axis 0: 2 of 6 | 2 of 6, only first [0], only second [2]\n"
        "c.weight axis 1: 1 of 6 | uncut\n"
        "a.n: 6 -> 2 (second only)"
    )
    assert mine.diff(mine) == ""


# -- composition ---------------------------------------------------------------------------------


def test_one_composed_plan_equals_two_plans_one_after_the_other() -> None:
    model = net()
    first = plan_without(capture_net(model), 1, 6, 9)
    half = apply(model, first)
    second = plan_without(capture_net(half), 0, 3, 7)
    twice, once = apply(half, second), apply(model, second.after(first))
    assert second.after(first).signature == first.signature
    expected = twice.state_dict()
    for name, tensor in once.state_dict().items():
        assert torch.equal(tensor, expected[name]), name
    assert [str(m) for m in once.modules()] == [str(m) for m in twice.modules()]
    assert expected["0.weight"].shape[0] + expected["3.weight"].shape[0] == 8 + 4 - 6


def test_composition_keeps_the_order_of_the_original() -> None:
    first = Plan((Cut("a.weight", 0, 6, (1, 2, 4, 5), "writer"),), (), BEFORE)
    second = Plan((Cut("a.weight", 0, 4, (0, 3), "writer"),), (), first.result)
    assert second.after(first).cuts == (Cut("a.weight", 0, 6, (1, 5), "writer"),)


def test_composition_in_blocks_equals_two_takes_by_hand() -> None:
    first = Plan((Cut("b.weight", 1, 12, (0, 1, 2, 4, 5, 7, 8, 10, 11), "reader", 3),), (), BLOCKED)
    second = Plan((Cut("b.weight", 1, 9, (0, 2, 4, 5, 6, 7), "reader", 3),), (), first.result)
    model = Blocked()
    twice = apply(apply(model, first), second)
    once = apply(model, second.after(first))
    rows = [(0, 2), (1, 3), (0, 2)]  # counted by hand: what each block keeps of its four
    expected = torch.stack([model.b.weight[i, list(keep)] for i, keep in enumerate(rows)])
    assert torch.equal(once.b.weight, expected)
    assert torch.equal(twice.b.weight, expected)


BLOCKED = Signature("Blocked", (("b.weight", (3, 4)),))


class Blocked(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.b = nn.Linear(4, 3, bias=False)


def test_what_is_left_of_a_plan_leads_from_the_first_one_to_it() -> None:
    """By hand: of six channels 0, 2, 5 stay first, of those the last two; blocks of two keep one each."""
    first = example()
    cuts = (
        Cut("a.weight", 0, 6, (2, 5), "writer"),
        Cut("c.weight", 1, 6, (0, 2, 5), "reader"),
        Cut("b.weight", 0, 6, (0, 1, 2), "writer"),
        Cut("b.weight", 1, 6, (0, 3, 5), "reader", 3),
    )
    whole = Plan(cuts, (Size("a", "out_features", 6, 2), Size("", "shape", (6, 1), (3, 1))), BEFORE)
    rest = whole.since(first)
    assert rest.cuts == (Cut("a.weight", 0, 3, (1, 2), "writer"), Cut("b.weight", 0, 6, (0, 1, 2), "writer"))
    assert rest.sizes == (Size("a", "out_features", 3, 2),)
    assert rest.signature == first.result
    assert rest.result == whole.result
    again = rest.after(first)
    assert (set(again.cuts), set(again.sizes)) == (set(whole.cuts), set(whole.sizes))
    assert whole.since(whole).cuts == whole.since(whole).sizes == ()


@pytest.mark.parametrize(
    ("first", "whole", "rest"),
    [
        (8, 4, (8, 4)),
        (4, 4, None),
        (Fraction(3, 4), Fraction(1, 4), (16, Fraction(1, 3))),
        ((0, 2, 5), (0, 3), ((0, 2, 5), (0, 3))),
    ],
)
def test_what_is_left_of_a_patch_after_another(first: PatchValue, whole: PatchValue, rest: object) -> None:
    def of(new: PatchValue) -> Plan:
        return Plan((), (), BEFORE, patches=(Patch("a", "torch.reshape", 0, "1", 16, new),))

    found = of(whole).since(of(first))
    assert [(patch.old, patch.new) for patch in found.patches] == ([] if rest is None else [rest])
    assert found.after(of(first)).patches == of(whole).patches


def test_a_plan_that_takes_something_back_is_no_rest_of_another() -> None:
    more = Plan((Cut("a.weight", 0, 6, (0, 1), "writer"),), (), BEFORE)
    fewer = Plan((Cut("a.weight", 0, 6, (0, 2, 5), "writer"),), (), BEFORE)
    with pytest.raises(PlanMismatchError, match="index 2 is to stay, and the first plan removes it"):
        fewer.since(more)
    with pytest.raises(PlanMismatchError, match="the first plan does it, and the whole one does not"):
        Plan((), (), BEFORE).since(more)
    with pytest.raises(PlanMismatchError, match="do not start from one model"):
        Plan((), (), Signature("Net", (("a.weight", (5, 3)),))).since(more)


def test_plans_that_do_not_meet_are_not_composed() -> None:
    with pytest.raises(
        PlanMismatchError,
        match=r"does not start where .* ends: tensor 'a.weight' is expected as \[6, 3\]",
    ):
        example().after(example())


# -- fitting a model -----------------------------------------------------------------------------


def test_a_plan_for_another_model_names_the_first_mismatch() -> None:
    plan = plan_without(capture_net(net()), 1)
    other = net()
    other[3] = nn.Conv2d(8, 6, 3)
    with pytest.raises(
        PlanMismatchError,
        match=r"tensor '3.weight' is expected as \[4, 8, 3, 3\], found \[6, 8, 3, 3\]",
    ):
        apply(other, plan)
    del other[5]
    other[3] = net()[3]
    with pytest.raises(PlanMismatchError, match=r"tensor '5.weight' \[5, 64\] is expected and missing"):
        apply(other, plan)
    larger = net()
    larger.append(nn.Linear(5, 5))
    with pytest.raises(PlanMismatchError, match=r"'6.weight' \[5, 5\] is not part of the plan's model"):
        apply(larger, plan)


def test_a_plan_whose_sizes_do_not_fit_is_refused() -> None:
    model = net()
    plan = plan_without(capture_net(model), 1)
    model[0].out_channels = 7
    with pytest.raises(PlanMismatchError, match=r"0.out_channels: 8 -> 7.* has 7 there"):
        apply(model, plan)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("w", 0, 4, (), "writer"), "keeps no channel"),
        (("w", 0, 4, (0, 4), "writer"), r"distinct indices in 0\.\.3"),
        (("w", 0, 4, (-1,), "writer"), r"distinct indices in 0\.\.3"),
        (("w", 0, 4, (1, 1), "writer"), r"distinct indices in 0\.\.3"),
        (("w", 0, 4, (1,), "owner"), "'writer' or 'reader', got 'owner'"),
        (("w", 1, 4, (0, 1, 2), "reader", 2), "each of the 2 blocks must keep equally many"),
        (("w", 1, 5, (0, 4), "reader", 2), "5 channels do not fall into 2 equal blocks"),
        (("w", 1, 4, (2, 0), "reader", 2), "in order"),
        (("w", 1, 4, (0, 2), "reader", 0), "blocks"),
        (("w", 1, 2, (0, 1), "reader", 3), "blocks"),
    ],
)
def test_a_cut_that_makes_no_sense_is_refused(arguments: tuple[object, ...], message: str) -> None:
    with pytest.raises(PlanError, match=message):
        Cut(*arguments)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("cuts", "message"),
    [
        ((Cut("z", 0, 4, (0,), "writer"),), "'z', which its model does not have"),
        ((Cut("a.weight", 2, 6, (0,), "writer"),), r"shape is \[6, 3\]"),
        ((Cut("a.weight", -1, 3, (0,), "writer"),), r"shape is \[6, 3\]"),
        ((Cut("a.weight", 0, 5, (0,), "writer"),), r"shape is \[6, 3\]"),
        (
            (Cut("a.weight", 0, 6, (0,), "writer"), Cut("a.weight", 0, 6, (1,), "writer")),
            "cut twice",
        ),
    ],
)
def test_a_cut_outside_of_the_model_is_refused(cuts: tuple[Cut, ...], message: str) -> None:
    with pytest.raises(PlanError, match=message):
        Plan(cuts, (), BEFORE)


# -- files ---------------------------------------------------------------------------------------


def test_a_plan_is_the_same_after_json(tmp_path: Path) -> None:
    plan = example()
    read = Plan.from_json(plan.to_json())
    assert read == plan
    assert read.note == "half"
    plan.save(tmp_path / "plan.json")
    assert Plan.load(tmp_path / "plan.json") == plan


def test_another_format_version_is_named() -> None:
    data = json.loads(example().to_json())
    with pytest.raises(FileError, match="format version 99, this library reads 1"):
        Plan.from_json(json.dumps({**data, "version": 99}))


def test_a_changed_plan_is_refused() -> None:
    data = json.loads(example().to_json())
    data["cuts"][0][3] = [0, 1, 2]
    with pytest.raises(FileError, match="changed after it was written"):
        Plan.from_json(json.dumps(data))


@pytest.mark.parametrize("part", [0.0, 0.2, 0.5, 0.9])
def test_a_truncated_plan_is_refused(part: float) -> None:
    text = example().to_json()
    with pytest.raises(FileError, match="truncated"):
        Plan.from_json(text[: int(part * len(text))])


@pytest.mark.parametrize("text", ["[]", "3", "null", '{"format": "other"}', "{}"])
def test_a_foreign_text_is_refused(text: str) -> None:
    with pytest.raises(FileError, match="not a plan"):
        Plan.from_json(text)


def test_a_fault_names_its_file(tmp_path: Path) -> None:
    with pytest.raises(FileError, match=r"absent\.json"):
        Plan.load(tmp_path / "absent.json")
    (tmp_path / "image.json").write_bytes(b"\x89PNG\xff\xfe")
    with pytest.raises(FileError, match=r"image\.json"):
        Plan.load(tmp_path / "image.json")
    (tmp_path / "cut.json").write_text(example().to_json()[:40])
    with pytest.raises(FileError, match=r"cut\.json.*truncated"):
        Plan.load(tmp_path / "cut.json")
    with pytest.raises(FileError, match="cannot read"):
        Plan.load(tmp_path)


def test_a_plan_that_cannot_be_written_says_where(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="nowhere"):
        example().save(tmp_path / "nowhere" / "plan.json")


# -- patches -------------------------------------------------------------------------------------


def patched(*changes: tuple[PatchValue, PatchValue]) -> Plan:
    """A plan that cuts nothing and patches the arguments 0, 1, … of one call."""
    patches = [Patch("a", "torch.Tensor.view", 1, str(i), old, new) for i, (old, new) in enumerate(changes)]
    return Plan((), (), BEFORE, patches=tuple(patches))


def test_every_kind_of_patch_survives_a_file(tmp_path: Path) -> None:
    plan = patched((8, 4), (None, 0.125), (6, Fraction(2, 3)), (4, (1, 3)), (-1, -1), (0.1, 0.1))
    plan.save(tmp_path / "plan.json")
    assert Plan.load(tmp_path / "plan.json") == plan
    assert str(plan).splitlines()[1:4] == [
        "  a: torch.Tensor.view (call 2) argument 0: 8 -> 4",
        "  a: torch.Tensor.view (call 2) argument 1: None -> 0.125",
        "  a: torch.Tensor.view (call 2) argument 2: 6 -> times 2/3",
    ]
    assert "argument 5: stays 0.1" in plan.summary()


def test_plans_without_patches_are_written_as_ever() -> None:
    data = json.loads(example().to_json())
    assert data["version"] == 1
    assert "patches" not in data


@pytest.mark.parametrize(
    ("first", "second", "both"),
    [
        ((8, 4), (4, 2), (8, 2)),
        ((None, 0.5), (0.5, 0.5), (None, 0.5)),
        ((8, Fraction(1, 2)), (4, Fraction(1, 2)), (8, Fraction(1, 4))),
        ((8, 4), (4, Fraction(1, 2)), (8, 2)),
        ((8, Fraction(1, 2)), (4, 2), (8, 2)),
    ],
)
def test_a_patch_after_a_patch_is_one_patch(
    first: tuple[PatchValue, PatchValue],
    second: tuple[PatchValue, PatchValue],
    both: tuple[PatchValue, PatchValue],
) -> None:
    assert patched(second).after(patched(first)) == patched(both)


def test_patches_of_two_plans_are_told_apart() -> None:
    (line,) = patched((8, 4), (6, 3)).diff(patched((8, 4))).splitlines()
    assert line == "a: torch.Tensor.view (call 2) argument 1: 6 -> 3 (first only)"


def test_a_number_is_patched_once_in_a_plan() -> None:
    patch = Patch("a", "torch.Tensor.view", 0, "1", 8, 4)
    with pytest.raises(PlanError, match=r"patched twice"):
        Plan((), (), BEFORE, patches=(patch, patch))
