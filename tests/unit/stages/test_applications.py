"""Continual learning and slimming: what is trained and tested, which labels are used, what a run leaves."""

import shutil
from unittest.mock import Mock, patch

import numpy as np
import pytest
import torch
from support import laboratory as lab
from support import one_line

from edc.config.rows import PretrainRow
from edc.nets.slim import scales
from edc.stages import continual, slimming
from edc.stages.context import Context
from edc.stages.observers import pretrained
from edc.storage import run_folder
from edc.training.evaluation import accuracy
from edc.training.sources import Condensed
from edc.training.students import Student

# Continual learning


def test_history_and_scores_of_class_incremental_learning(project, monkeypatch):
    fresh = Mock(wraps=continual.fresh)
    monkeypatch.setattr(continual, "fresh", fresh)
    lab.run("continual", steps=3, orders=[0, 4])
    # Every step trains fresh students with an output for each class seen.
    seeds_and_classes = [call.args[1:] for call in fresh.call_args_list]
    assert seeds_and_classes == [(0, 4), (1, 4), (0, 7), (1, 7), (0, 10), (1, 10)] * 2
    rows = lab.history("continual")
    # Two orders, two seeds; after the three steps the classes of one, two and three steps are tested, and all.
    assert len(rows) == 2 * 2 * (2 + 3 + 4)
    assert {(row["step"], row["classes"]) for row in rows} == {("0", "4"), ("1", "7"), ("2", "10")}
    final = [float(row["accuracy"]) for row in rows if (row["step"], row["classes_of_step"]) == ("2", "all")]
    assert lab.manifest("continual")["scores"]["accuracy_mean"][-1] == pytest.approx(np.mean(final), rel=1e-5)
    assert len(set(final)) > 1  # or else the tests of resuming would prove little


def test_seeds_and_orders_are_independent_of_each_other(project):
    lab.run("continual", orders=[0, 3])
    together = [row for row in lab.history("continual") if (row["order"], row["seed"]) == ("3", "1")]
    lab.run("continual", orders=[3], seeds=[1])
    assert lab.history("continual") == together


def test_static_labels_are_those_of_the_relabel_stage(project):
    stored = np.load("runs/relabel/labels/static.npy")
    context = continual.Context(lab.plan("continual", regime="static"), "continual", "row", torch.device("cpu"))
    memory, _ = continual.class_memory(context)
    assert torch.equal(memory.static, torch.from_numpy(stored).float())


def test_labels_that_came_with_an_imported_set_are_refused(project):
    words = "those labels are imported; only observers can label the images again"
    with one_line(words, start="continual.row.labels = 'labels': "):
        lab.run("continual", {"labels": {"source": "imported"}})


# Slimming


def test_units_of_a_slimming_run(project, monkeypatch):
    """Each seed trains the whole network with the penalty, then every smaller one without; labels from epoch 0 on."""
    trained = []

    class RecordedStudent(Student):
        def __init__(self, seed, row, *others, **more):
            super().__init__(seed, row, *others, **more)
            trained.append((seed, self.sparsity, row.epochs, sum(map(len, scales(self.model)))))

    monkeypatch.setattr(slimming, "Student", RecordedStudent)
    with patch.object(Condensed, "epoch", autospec=True, side_effect=Condensed.epoch) as epoch:
        lab.run("slimming", ratios=[0.4, 0.0, 0.2, 0.4])
    assert trained == [(s, *unit) for s in (0, 1) for unit in ((0.01, 3, 84), (0.0, 2, 68), (0.0, 2, 51))]
    assert [call.args[1] for call in epoch.call_args_list] == [0, 1, 2, 0, 1, 0, 1] * 2
    assert [(row["seed"], row["ratio"], row["channels"]) for row in lab.history("slimming")] == [
        (s, *unit) for s in "01" for unit in (("0", "84"), ("0.2", "68"), ("0.4", "51"))
    ]
    assert lab.manifest("slimming")["scores"]["ratios"] == [0.0, 0.2, 0.4]


def test_a_pretrained_network_is_tested_trained_sparsely_and_pruned(project):
    trained = {f"start{seed}": lab.OBSERVER | {"network": "vgg11_bn", "seed": seed} for seed in (0, 1)}
    plan = lab.plan("slimming", pretrained=list(trained), ratios=[0.1])
    plan = plan.model_copy(update={"pretrain": plan.pretrain | {k: PretrainRow(**row) for k, row in trained.items()}})
    for key in trained:
        lab.execute(plan, "pretrain", key)
    lab.execute(plan, "slimming", "row")
    manifest = lab.manifest("slimming")
    assert {"pretrain/start0", "pretrain/start1"} <= manifest["inputs"].keys()
    before = [float(row["accuracy_before"]) for row in lab.history("slimming") if row["ratio"] == "0"]
    context = Context(plan, "slimming", "row", torch.device("cpu"))
    feed = context.feed(context.images("test"))
    assert before == [accuracy(pretrained(context, key), feed) for key in trained]


def test_a_trial_is_tested_on_held_out_images(project):
    plan = lab.plan("slimming", split="val", ratios=[0.1])
    lab.execute(plan, "slimming", "row")
    context = Context(plan, "slimming", "row", torch.device("cpu"))
    assert lab.manifest("slimming")["test_digest"] == context.images("val").digest != context.images("test").digest


def test_without_fine_tuning_accuracy_is_that_before_it(project):
    lab.run("slimming", finetune=0)
    for row in lab.history("slimming"):
        assert row["accuracy_before"] == ("" if row["ratio"] == "0" else row["accuracy_after"])


def test_averaged_weights_are_pruned_where_the_protocol_averages(project, monkeypatch):
    averaged = []
    pruned = []
    slimmed = slimming.slimmed

    def recorded(model, channels):
        pruned.append([p.detach().clone() for p in model.parameters()])
        return slimmed(model, channels)

    class RecordedStudent(Student):
        def test(self, feed):
            if self.sparsity and self.average is not None:
                averaged[:] = [shadow.clone() for shadow in self.average.shadow]
            return super().test(feed)

    monkeypatch.setattr(slimming, "slimmed", recorded)
    monkeypatch.setattr(slimming, "Student", RecordedStudent)
    lab.run("slimming", ema=0.5, seeds=[0], ratios=[0.2])
    assert averaged
    assert all(map(torch.equal, averaged, pruned[0]))


@pytest.mark.parametrize("stage", ["continual", "slimming", "evaluate"])
def test_a_student_may_train_on_the_whole_dataset(project, stage):
    shutil.rmtree("runs")
    changes = {"student": "vgg11_bn", "finetune": 1} if stage == "slimming" else {}
    lab.run(stage, **lab.FULL | {"epochs": 1, "seeds": [0]} | changes)
    assert lab.manifest(stage)["inputs"] == {}


def test_a_ratio_that_would_remove_a_layer_is_refused_before_any_network_is_pruned(project, monkeypatch):
    monkeypatch.setattr(slimming, "slimmed", lambda *_: pytest.fail("a network was pruned"))
    words = r"ratio 0.97 would remove every channel of convolution \d; take at most 0"
    with one_line(start="slimming.row.ratios: ", match=words):
        lab.run("slimming", ratios=[0.1, 0.97, 0.2])
    assert not run_folder("slimming", "row").exists()
