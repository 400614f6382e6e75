from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from compressor import extras
from compressor.errors import InputError, MissingExtraError
from compressor.filters import FilterBank, FilterReport, report, report_of
from compressor.filters.basis import Basis
from compressor.filters.figures import (
    basis_figure,
    depth_figure,
    histogram_figure,
    of_report,
    phenotype_figure,
    saved,
)
from compressor.filters.figures.canvas import blank
from compressor.filters.histograms import Histogram

matplotlib = pytest.importorskip("matplotlib")


# -- a checker of its own: no two texts of a figure lie on each other --------------------------------


def _texts(figure: Any) -> Iterator[Any]:
    """Every text that is drawn: titles, labels, legends, and the ticks within their axis."""
    yield from (figure._suptitle, figure._supxlabel, figure._supylabel)
    for legend in [*figure.legends, *(axes.get_legend() for axes in figure.axes)]:
        yield from legend.get_texts() if legend is not None else ()
    for axes in figure.axes:
        yield from (axes.title, axes.xaxis.label, axes.yaxis.label)
        for axis in (axes.xaxis, axes.yaxis):
            low, high = sorted(axis.get_view_interval())
            ticks = (*axis.get_major_ticks(), *axis.get_minor_ticks())
            yield from (tick.label1 for tick in ticks if low <= tick.get_loc() <= high)


def assert_texts_apart(figure: Any) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    renderer = canvas.get_renderer()
    shown = [t for t in _texts(figure) if t is not None and t.get_text().strip() and t.get_visible()]
    boxes = [(text.get_text(), text.get_window_extent(renderer)) for text in shown]
    assert len(boxes) > 2
    whole = figure.bbox
    for text, box in boxes:
        inside = box.x0 >= -1 and box.y0 >= -1 and box.x1 <= whole.x1 + 1 and box.y1 <= whole.y1 + 1
        assert inside, f"{text!r} leaves the figure"
    for (one, a), (other, b) in itertools.combinations(boxes, 2):
        wide, high = min(a.x1, b.x1) - max(a.x0, b.x0), min(a.y1, b.y1) - max(a.y0, b.y0)
        assert wide < 1 or high < 1, f"{one!r} lies on {other!r}"


def test_the_checker_finds_a_text_on_another_and_one_that_leaves_the_figure() -> None:
    figure = blank(3, 3)
    axes = figure.subplots()
    axes.set_title("one")
    axes.set_xlabel("two")
    assert_texts_apart(figure)
    axes.xaxis.set_label_coords(0.5, 1.03)
    with pytest.raises(AssertionError, match="'one' lies on 'two'"):
        assert_texts_apart(figure)
    axes.set_title("a title that is too long for three inches, written twice" * 2)
    with pytest.raises(AssertionError, match="leaves the figure"):
        assert_texts_apart(figure)


# -- reports to draw --------------------------------------------------------------------------------


def _report(layers: int, *, size: tuple[int, ...] = (3, 3), name: str = "layer{}.conv") -> FilterReport:
    torch.manual_seed(0)
    return report_of(
        [
            FilterBank(torch.randn(8, 8, *size), name.format(i), conv_depth=i, conv_depth_norm=i / layers)
            for i in range(layers)
        ],
        model="net",
    )


LONG = "backbone.stages.{}.residual_blocks.0.branches.2.convolution"


@pytest.mark.parametrize(
    ("layers", "size", "name"),
    [(1, (3, 3), "conv"), (8, (3, 3), LONG), (7, (3, 3, 3), "conv{}"), (3, (5,), "conv{}")],
)
def test_figures_of_a_report_are_readable(layers: int, size: tuple[int, ...], name: str) -> None:
    made = _report(layers, size=size, name=name)
    assert made.standing is not None
    assert_texts_apart(depth_figure({"net": made}))
    assert_texts_apart(basis_figure(made.standing.basis, kernel_size=size, at_most=9))
    assert_texts_apart(phenotype_figure(made.layers, made.standing.basis))
    groups = {layer.bank.name: layer.histogram for layer in made.layers[:4] if layer.histogram}
    assert_texts_apart(histogram_figure(groups, shares=made.standing.basis.shares_K.tolist()))


@pytest.mark.parametrize("layers", [39, 120])
def test_names_of_many_layers_do_not_lie_on_each_other(layers: int) -> None:
    assert_texts_apart(depth_figure({"net": _report(layers, size=(1, 1), name="layer{}")}))


def test_several_reports_share_the_panels_over_their_relative_depth() -> None:
    figure = depth_figure({"shallow": _report(6), "deep": _report(12), "flat": _report(3, size=(1, 1))})
    assert_texts_apart(figure)
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["shallow", "deep", "flat"]
    lines = figure.axes[0].get_lines()[:3]
    assert [len(line.get_xdata()) for line in lines] == [6, 12, 3]
    assert max(lines[1].get_xdata()) == 11 / 12


def test_what_is_drawn_is_what_was_measured() -> None:
    made = _report(6)
    panels = {axes.get_ylabel(): axes.get_lines()[0].get_ydata() for axes in depth_figure({"n": made}).axes}
    assert list(panels["sparsity S"]) == [layer.quality.sparsity for layer in made.layers]
    assert list(panels["H / T_H (1: random)"]) == [layer.entropy_ratio for layer in made.layers]
    points = report_of([FilterBank(torch.randn(8, 4, 1, 1), "point")])
    titles = [axes.get_ylabel() for axes in depth_figure({"n": points}).axes]
    assert titles == ["sparsity S", "orthogonality", "dead filters, share"]  # the others are not defined


def test_a_distance_within_noise_is_not_drawn() -> None:
    alike = [FilterBank(torch.randn(16, 16, 3, 3), f"conv{i}") for i in range(3)]
    flat = FilterBank(alike[0].weight + 5 * torch.randn(16, 16, 1, 1), "flat")
    made = report_of([*alike, flat], basis=Basis.cosines((3, 3)))
    panels = {axes.get_ylabel(): axes.get_lines()[0].get_ydata() for axes in depth_figure({"n": made}).axes}
    drawn, seen = panels["D less its noise"], [layer.drift for layer in made.layers if layer.drift]
    assert [value == value for value in drawn] == [drift.above_noise for drift in seen]
    assert seen[3].above_noise and drawn[3] == seen[3].value - seen[3].noise.expected


def test_densities_have_an_area_of_one_and_small_groups_are_as_high_as_large_ones() -> None:
    basis = Basis.cosines((3, 3))
    groups = {n: Histogram.of(torch.randn(int(n), 9), basis) for n in ("300", "3000")}
    for axes in histogram_figure(groups, shares=basis.shares_K.tolist()).axes:
        for steps in axes.patches:
            values, edges, _ = steps.get_data()
            assert float((values * (edges[1:] - edges[:-1])).sum()) == pytest.approx(1)


def test_a_panel_counts_every_kernel() -> None:
    made = _report(3)
    assert made.standing is not None
    figure = phenotype_figure(made.layers, made.standing.basis)
    for axes, layer in zip(figure.axes, made.layers, strict=False):
        (image,) = axes.images
        density = image.get_array().filled(0)
        left, right, low, high = image.get_extent()
        cell = (right - left) * (high - low) / density.size
        assert float(density.sum() * cell) == pytest.approx(1)
        assert layer.phenotype is not None and layer.phenotype.value in axes.get_title()


def test_the_first_component_runs_from_left_to_right() -> None:
    basis = Basis.cosines((3, 3))
    wide = FilterBank(
        torch.randn(32, 32, 1, 1).expand(-1, -1, 3, 3) + 0.1 * torch.randn(32, 32, 3, 3), "wide"
    )
    figure = phenotype_figure(report_of([wide], basis=basis).layers, basis)
    filled = figure.axes[0].images[0].get_array().filled(0) > 0
    assert filled.any(axis=0).sum() > 2 * filled.any(axis=1).sum()


# -- files ------------------------------------------------------------------------------------------


def test_a_report_writes_its_figures_and_says_where(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(of_report, "_PANELS", 4)
    paths = _report(7).figures(tmp_path / "new" / "folder", formats=("png", "svg"))
    names = ["depth", "basis", "coefficients", "phenotypes-1", "phenotypes-2"]
    assert [path.name for path in paths] == [f"{n}.{ending}" for n in names for ending in ("png", "svg")]
    assert all(path.read_bytes()[:4] == b"\x89PNG" for path in paths if path.suffix == ".png")
    assert all(b"<svg" in path.read_bytes() for path in paths if path.suffix == ".svg")


def test_the_same_figure_gives_the_same_bytes(tmp_path: Path) -> None:
    formats = ("png", "svg", "pdf")
    one, other = (
        saved(basis_figure(Basis.cosines((2, 2)), kernel_size=(2, 2)), tmp_path / n, "f", formats=formats)
        for n in "ab"
    )
    assert [p.read_bytes() for p in one] == [p.read_bytes() for p in other]


@pytest.mark.parametrize(
    "weight",
    [torch.randn(8, 4, 1, 1), torch.zeros(8, 4, 3, 3), torch.ones(2, 2, 3, 3), torch.randn(1, 1, 3, 3)],
)
def test_layers_without_shapes_have_the_figure_that_is_left(weight: torch.Tensor, tmp_path: Path) -> None:
    paths = report_of([FilterBank(weight, "conv")]).figures(tmp_path)
    assert [path.name for path in paths] == ["depth.png"]


def test_a_layer_of_zeros_among_others_is_drawn(tmp_path: Path) -> None:
    banks = [FilterBank(torch.randn(8, 8, 3, 3), "conv"), FilterBank(torch.zeros(8, 8, 3, 3), "zeros")]
    assert len(report_of(banks).figures(tmp_path)) == 4


def test_formats_and_groups_that_are_none_are_refused(tmp_path: Path) -> None:
    made = _report(2)
    assert made.standing is not None
    with pytest.raises(InputError, match=r"some of png, svg, pdf, got \['bmp'\]"):
        made.figures(tmp_path, formats=("bmp",))
    with pytest.raises(InputError, match="got none"):
        depth_figure({})
    with pytest.raises(InputError, match="got none"):
        histogram_figure({}, shares=[1.0])
    with pytest.raises(InputError, match="one layer or more"):
        phenotype_figure([], made.standing.basis)
    with pytest.raises(InputError, match=r"5 x 5 have 25 elements, those of basis \w+ 9"):
        basis_figure(made.standing.basis, kernel_size=(5, 5))
    zeros = Histogram.of(torch.zeros(3, 9), made.standing.basis)
    with pytest.raises(InputError, match="'zeros' has no kernels that are not zero"):
        histogram_figure({"zeros": zeros}, shares=made.standing.basis.shares_K.tolist())
    with pytest.raises(InputError, match="9 components, `shares` has 2"):
        histogram_figure({"zeros": zeros}, shares=[0.5, 0.5])


def test_without_matplotlib_the_error_has_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def absent(name: str) -> None:
        raise ImportError(f"No module named {name!r}")

    made = report(nn.Conv2d(3, 8, 3))
    monkeypatch.setattr(extras.importlib, "import_module", absent)
    with pytest.raises(MissingExtraError, match=r"pip install 'compressor\[plots\]'"):
        made.figures(tmp_path)
    assert "Conv2d" in str(made)
    assert not list(tmp_path.iterdir())


def test_saving_makes_one_file_for_each_format(tmp_path: Path) -> None:
    figure = basis_figure(Basis.cosines((3, 3)))
    assert saved(figure, tmp_path, "shapes", formats=("pdf",)) == (tmp_path / "shapes.pdf",)
    assert (tmp_path / "shapes.pdf").read_bytes()[:4] == b"%PDF"
