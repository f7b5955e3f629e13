"""What a benchmark has to do: counted in advance, and accounted for to the last unit, whether it is computed or found."""

import pytest

from encoders.runtime.progress import Progress
from encoders.zoo.zoo import find_encoder
from tests.transfer import toys
from tests.transfer.bench.test_bench import NET, OTHER, add
from transfer.bench.bench import BenchRequest, plan_bench, run_bench
from transfer.bench.work import BenchWork, count_work, forward_cost


def test_all_work_is_accounted_for_also_where_records_exist(tmp_path):
    where = toys.store(tmp_path / "toy.h5", patients=40)
    add(where)
    add(where, name="again")
    for encoders, computed in (([NET], 2), ([NET, OTHER, "pixels"], 6), ([NET, OTHER, "pixels"], 0)):
        request = BenchRequest(encoders, protocols=["knn"], baselines=[], near_duplicates=False)
        plan = plan_bench(request, lambda text: None)
        work, finished = count_work(plan), []
        progress = Progress(len(plan), work)
        images = len(plan.tasks[0].key)  # a store is embedded once for both tasks
        assert work["embed"] == pytest.approx(images * sum(forward_cost(entry.card) for entry in plan.entries))
        assert work["knn at 1"] == len(encoders) * sum((task.split.part != "").sum() for task in plan.tasks)
        result = run_bench(request, plan, lambda text: None, progress)
        run_bench(request, plan, lambda text: None, finished.append)
        assert (progress.done, progress.seconds_left(), sum(finished)) == (len(plan), 0.0, len(plan))
        assert [kind.left for kind in progress.kinds.values()] == pytest.approx([0.0, 0.0], abs=1e-6)
        assert (progress.done - progress.skipped, result.computed) == ((computed, computed) if computed != 6 else (4, 4))


def test_an_encoder_without_weights_takes_its_work_along(tmp_path):
    add(toys.store(tmp_path / "toy.h5", patients=40))
    request = BenchRequest([NET, OTHER], protocols=["knn"], baselines=[], near_duplicates=False)
    plan = plan_bench(request, lambda text: None)
    progress = Progress(len(plan), count_work(plan))
    work = BenchWork(plan, progress)
    for entry in plan.entries:
        work.start_encoder(entry)
        work.skip_encoder(entry)
    work.end_encoder()
    assert (progress.done, progress.skipped, progress.seconds_left()) == (2, 2, 0.0)


def test_the_cost_of_an_image_grows_with_the_network_and_its_input():
    cost = {
        name: forward_cost(find_encoder(name).card) for name in ("pixels", "random_resnet18:size=64", "random_resnet18", "random_resnet50")
    }
    assert sorted(cost.values()) == list(cost.values())
    assert cost["random_resnet18"] / cost["random_resnet18:size=64"] == pytest.approx((224 / 64) ** 2)
    both = forward_cost(find_encoder("random_resnet18+random_resnet50").card)
    assert both == pytest.approx(cost["random_resnet18"] + cost["random_resnet50"])
