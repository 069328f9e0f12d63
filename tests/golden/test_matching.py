"""The matching loss of the published code: SRe2L's, G-VBSM's and EDC's on small layers."""

import math
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from support.layers import class_sums
from support.published import LOSS, bn, checks, close, counted, find
from support.rows import synthesize_row
from torch import Tensor, nn

from edc.condense.layer_statistics import Hook, StatisticsCollector, running_statistics
from edc.condense.matching import StatisticsMatcher, skipped_hooks, swapped_cells
from edc.condense.moments import grid, to_grid
from edc.condense.observer import Observer
from edc.config.choices import Match
from edc.config.rows import SynthesizeRow

SUMS = {"rtol": 0, "atol": 1e-4}


def row(ema: float = 0.0, **match: Any) -> SynthesizeRow:
    """A recipe that matches as SRe2L does, with running statistics from zero."""
    match |= {"layers": ["bn"], "target": "global", "ema": ema, "ema_init": "zero"}
    return synthesize_row(1, 1, ipc=1, statistics=None, match=match)


@checks("sre2l.bn_feature_loss")
def test_batch_norm_loss(case: dict[str, Any]) -> None:
    x = counted(2, 2, 2, 2) / 10
    layer = bn(case["running_mean"], case["running_var"])
    for first, expected in ((1, case["r_feature"]), (10, case["weighted_as_first_layer_x10"])):
        observer = Observer.make("o", layer, row(first_hook=first), 4, (2, 2, 2), None)
        statistics = observer.collector(x)[1]
        close(statistics, case["batch_mean"] + case["batch_var_biased"])
        close(observer.matcher(statistics), expected, rtol=1e-6, atol=2e-6)
        terms = observer.matcher.norms(statistics - observer.matcher.global_target)
        close(terms, [case["mean_term_l2"], case["var_term_l2"]], **LOSS)
        observer.collector.close()


@checks("sre2l.recover_total_loss")
def test_total_loss_of_synthesis(case: dict[str, Any]) -> None:
    convolution = nn.Conv2d(3, 2, 1, bias=False)
    with torch.no_grad():
        convolution.weight.copy_(torch.tensor([[1, -1, 0.5], [0.25, 0.5, -0.75]]).view(2, 3, 1, 1))
    layers = (bn([0.1, 0.2, 0.3], [0.5] * 3), convolution, bn([0.5, -0.25], [1.0, 2.0]))
    model = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten()).eval()
    settings = row(weight=case["r_bn"], first_hook=case["first_bn_multiplier"])
    observer = Observer.make("o", model, settings, 4, (3, 2, 2), None)
    x = (counted(2, 3, 2, 2) / 12 - 1).requires_grad_()
    logits, statistics = observer.collector(x)
    norms = observer.matcher.norms(statistics.detach() - observer.matcher.global_target)
    close(norms.view(2, 2).sum(1), case["r_per_bn"], **LOSS)
    ce, matching = F.cross_entropy(logits, torch.tensor(case["targets"])), observer.matcher(statistics)
    close(ce.detach(), case["ce"])
    close(matching.detach(), case["r_weighted"], rtol=0, atol=1e-5)
    loss = ce + settings.match.weight * matching
    loss.backward()
    close(loss.detach(), case["total"])
    close(x.grad.sum(), case["grad_sum"])
    close(x.grad.norm(), case["grad_l2"])
    close(x.grad.flatten()[:4], case["grad_first4"])


@checks("gvbsm.bn_ema_sequence")
def test_running_statistics_of_batch_norm(case: dict[str, Any]) -> None:
    for momentum in (0.4, 0.8):
        settings = row(ema=momentum, first_hook=1)
        observer = Observer.make("o", bn([0.5, -0.25], [1.0, 2.0]), settings, 4, (2, 2, 2), None)
        for given in case[f"momentum_{momentum}".replace(".", "_")]:
            x = (counted(2, 2, 2, 2) / 10 + 0.1 * given["step"]).requires_grad_()
            loss = observer.matcher(observer.collector(x)[1])
            loss.backward()
            close(observer.matcher.running, given["ema_mean"] + given["ema_var"])
            close(loss.detach(), given["r_feature"], **LOSS)
            close(x.grad.norm(), given["grad_l2"])


def batch_norm_case(
    config: dict[str, Any], momentum: float, alpha: float = 0.5
) -> tuple[StatisticsCollector, StatisticsMatcher]:
    """One batch norm whose running statistics are the global target."""
    layer = bn(config["Tm"], config["Tv"])
    collector = StatisticsCollector(layer, 4, (2, 2, 2))
    everything = running_statistics(layer, collector.hooks, torch.zeros(collector.size))
    table = torch.cat([torch.tensor(config["Cm"]), torch.tensor(config["Cv"])], dim=1)
    choices = Match(alpha=alpha, ema=momentum, ema_init="zero", first_hook=1)
    matcher = StatisticsMatcher(collector.hooks, choices, everything, table)
    matcher.start_group(torch.tensor(config["targets"]))
    return collector, matcher


@pytest.mark.parametrize("momentum", [0.8, 0.0])
@checks("edc.bn_hook_global")
def test_batch_norm_with_class_targets(case: dict[str, Any], momentum: float) -> None:
    collector, matcher = batch_norm_case(case["config"], momentum)
    visits = case[f"m={momentum}"]
    assert len(visits) == (2 if momentum else 1)
    for visit in visits:
        x = torch.tensor(visit["x"], requires_grad=True)
        _, statistics = collector(x)
        loss = matcher(statistics)
        loss.backward()
        close(statistics.detach(), visit["batch_mean"] + visit["batch_var_biased"])
        close(matcher.running, visit["ema_mean_after"] + visit["ema_var_after"])
        close(loss.detach(), visit["loss"], **SUMS)
        close(x.grad, visit["grad_x"], **SUMS)


@checks("edc.soft_category_aware_forms_on_bn_case")
def test_mixes_of_global_and_class_target(case: list[dict[str, Any]]) -> None:
    assert len(case) == 2
    batch_norm = find("edc.bn_hook_global")
    for given in case:
        x = torch.tensor(batch_norm[f"m={given['momentum']}"][given["visit"] - 1]["x"])
        mixes = given["alpha_mix(alpha*form1+(1-alpha)*form2)"]
        assert len(mixes) == 5
        for alpha, expected in [*mixes.items(), (1.0, given["form1"]), (0.0, given["form2"])]:
            collector, matcher = batch_norm_case(batch_norm["config"], given["momentum"], float(alpha))
            close(matcher(collector(x)[1]), expected, **SUMS)


def wave(side: int, offset: float) -> Tensor:
    a = torch.arange(4 * side * side, dtype=torch.float32).view(2, 2, side, side)
    return torch.sin(0.37 * a + offset) + a / (4 * side * side)


@checks("edc.conv_hook_patch4_8x8", "edc.conv_hook_patch4_6x6_resized_to_8", "edc.conv_hook_patch4_8x8_m0")
def test_convolution_with_class_targets(case: dict[str, Any], request: pytest.FixtureRequest) -> None:
    side, momentum = 6 if "6x6" in request.node.name else 8, 0.0 if "m0" in request.node.name else 0.8
    collector = StatisticsCollector(nn.Conv2d(2, 1, 1), 4, (2, side, side))
    batches = [(wave(side, offset), torch.tensor(labels)) for offset, labels in case["real_batches"]]
    sums = class_sums(collector, batches, 2)
    everything, table = sums.result("within")
    assert int(sums.counts.sum()) == case["data_number"]

    names = ("dd_mean", "dd_var", "patch_mean", "patch_var")
    close(everything, [v for n in names for v in case["global_stats"][n]])
    for c, stats in case["class_stats_in_memory"].items():
        close(table[int(c)], [v for n in names for v in stats[n]])
    swapped = table[:, swapped_cells(collector.hooks)]
    for c, stats in case["class_patch_stats_after_official_save_load(SWAPPED)"].items():
        close(swapped[int(c), 4:], stats["patch_mean"] + stats["patch_var"])
    assert torch.equal(swapped[:, :4], table[:, :4])

    for swap, suffix in ((False, "corrected"), (True, "official_swapped")):
        choices = Match(alpha=0.5, ema=momentum, ema_init="zero", first_hook=1, swap_class_patch=swap)
        matcher = StatisticsMatcher(collector.hooks, choices, everything, table)
        matcher.start_group(torch.tensor([0, 1]))
        x = (0.7 * wave(side, 0.5)).requires_grad_()
        loss = matcher(collector(x)[1])
        loss.backward()
        close(loss.detach(), case[f"loss_{suffix}" + ("" if swap else "_unswapped")], **SUMS)
        close(x.grad.norm(), case[f"grad_l2_{suffix}"], **SUMS)


@checks("gvbsm.conv_stats_patch4_8x8", "gvbsm.conv_stats_patch16_upsampled_8x8", "gvbsm.conv_stats_patch4_6x6")
def test_statistics_of_convolutions(case: dict[str, Any]) -> None:
    """Statistics over two batches of data, and two visits of a matching that starts from zero."""
    side = 6 if "6x6" in case.get("note", "") else 8
    patch = 16 if "16x16" in case.get("note", "") else 4
    numbers = torch.arange(2 * side * side)
    collector = StatisticsCollector(nn.Conv2d(1, 1, 1), patch, (1, side, side))
    data = [((numbers * 7 + 5 * b) % 13).float().div(13).view(2, 1, side, side) for b in range(2)]
    one_class = torch.zeros(2, dtype=torch.int64)
    everything, table = class_sums(collector, [(x, one_class) for x in data], 1).result("within")
    names = ("ch_mean", "ch_var", "patch_mean", "patch_var")
    close(everything, [value for name in names for value in case["running"][name]])
    assert collector.hooks[0].cells == case["patch_vector_length"]
    settings = Match(target="global", ema=case["momentum"], ema_init="zero", first_hook=1)
    matcher = StatisticsMatcher(collector.hooks, settings, everything, table)
    matcher.start_group(one_class)
    for visit in case["post"]:
        x = ((numbers * 3) % 11).float().div(11).view(2, 1, side, side).requires_grad_()
        loss = matcher(collector(x)[1])
        loss.backward()
        close(loss.detach(), visit["r_feature"], **LOSS)
        close(x.grad.norm(), visit["grad_l2"], rtol=0, atol=5e-6)


@checks("gvbsm.conv_hook_skip_rate")
def test_convolutions_are_skipped_by_chance(case: dict[str, float]) -> None:
    hooks = [Hook(str(i), "conv" if i % 2 else "bn", 0, 1, 0) for i in range(100)]
    rng, visits = np.random.default_rng(0), 400
    skipped = [skipped_hooks(hooks, case["drop_rate"], rng) for _ in range(visits)]
    assert all(i % 2 for some in skipped for i in some)
    rate, n = case["drop_rate"], 50 * visits
    allowed = 4 * math.sqrt(rate * (1 - rate) / n)
    assert sum(map(len, skipped)) / n == pytest.approx(rate, abs=allowed)
    assert case["measured"] == pytest.approx(rate, abs=allowed)
    assert len(skipped_hooks(hooks, 0.0, rng)) == case["drop_rate_0"]


@checks("gvbsm.grid_rounding")
def test_whole_cells(case: dict[str, dict[str, int]]) -> None:
    for name, sides in case.items():
        for side, expected in sides.items():
            assert grid(int(side), 3, int(name.split("_")[-1]))[0] == expected


@checks("edc.patch_geometry")
def test_patch_geometry(case: dict[str, Any]) -> None:
    for patch in (4, 16):
        for side, cells in case[f"n_cells_at_P{patch}"].items():
            collector = StatisticsCollector(nn.Conv2d(1, 1, 1), patch, (1, int(side), int(side)))
            assert collector.hooks[0].cells == cells
        for side, padded in case[f"ceil{patch}"].items():
            assert grid(int(side), int(side), patch) == (padded, padded)
            assert to_grid(torch.zeros(1, 1, int(side), int(side)), patch).shape[-2:] == (padded, padded)
    x = counted(1, 1, 8, 8)
    assert to_grid(x, 4) is x
