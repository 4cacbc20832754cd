"""The two stages: draws against their shares, the choice of windows against plain recomputations."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch

from datamodules.crops import CropDataset, Window, sub_images
from datamodules.curriculum import BLOCK, LAG, Shares, TwoStages, WindowDraws, favouring, ranks
from datamodules.loader import StreamLoader, StreamSampler

PATCH = 24


@pytest.fixture
def patches(position_store) -> CropDataset:
    """Twelve windows of one size in one picture, whose red is 0, green the row and blue the column, and one larger."""
    store = position_store([(72, 96), (48, 48)])
    return CropDataset(store, [*sub_images(store, [0], 32)[:12], Window(1, 0, 0, 48, 48)], PATCH, seed=0)


def drawn(draws: WindowDraws, first: int, last: int) -> np.ndarray:
    return draws(torch.arange(first, last)).numpy()


def test_draws_follow_their_shares(patches):
    """Against Pearson's chi-square for the marginal (scipy), and against exact stratification within each round."""
    from scipy.stats import chisquare

    shares = np.random.default_rng(0).random(len(patches.windows)) ** 2
    shares[[2, -1]] = 0
    draws, rounds, length = WindowDraws(patches), 200, len(patches)
    draws.publish(0, 7 * shares)
    counts = [np.bincount(drawn(draws, n * length, (n + 1) * length), minlength=len(shares)) for n in range(rounds)]
    expected = length * shares / shares.sum()
    assert np.abs(np.array(counts) - expected).max() < 2  # a share's two borders lie in one slot of a round each
    total = np.sum(counts, axis=0)
    assert total[shares == 0].tolist() == [0, 0]
    assert chisquare(total[shares > 0], rounds * expected[shares > 0]).pvalue > 0.01
    apart = [drawn(draws, n * length + 5, n * length + 6)[0] for n in range(5 * rounds)]  # one of each round
    found = np.bincount(apart, minlength=len(shares))
    assert chisquare(found[shares > 0], 5 * rounds * (shares / shares.sum())[shares > 0]).pvalue > 0.01


def test_draws_by_area_are_those_without_a_curriculum(patches):
    draws = WindowDraws(patches)
    draws.publish(0, patches.areas / 3)
    numbers = range(3 * len(patches))
    told = patches.__getitems__(list(zip(numbers, drawn(draws, 0, len(numbers)).tolist(), strict=True)))
    assert torch.equal(told.hr, patches.__getitems__(numbers).hr)


def only(patches: CropDataset, *windows: int) -> np.ndarray:
    shares = np.zeros(len(patches.windows))
    shares[list(windows)] = 1
    return shares


def test_shares_are_in_force_from_their_number_on(patches):
    draws = WindowDraws(patches)
    for start, window in ((0, 3), (100, 5), (101, 7)):
        draws.publish(start, only(patches, window))
    assert drawn(draws, 97, 104).tolist() == [3, 3, 3, 5, 7, 7, 7]
    draws.publish(100, only(patches, 1))  # takes the place of what was to come
    assert drawn(draws, 98, 103).tolist() == [3, 3, 1, 1, 1]
    draws.publish(3 * BLOCK, only(patches, 4))
    assert drawn(draws, 3 * BLOCK - 2, 3 * BLOCK + 2).tolist() == [1, 1, 4, 4]
    draws.publish(200, only(patches, 2))
    draws.forget(150)
    assert drawn(draws, 198, 202).tolist() == [1, 1, 2, 2]
    assert len(draws.state_dict()["starts"]) == 2


@pytest.mark.parametrize("seed", range(5))
def test_favoured_are_the_highest_scores_with_the_share_of_pixels(seed):
    rng = np.random.default_rng(seed)
    areas, scores = rng.integers(1, 9, 20).astype(float), rng.integers(0, 6, 20).astype(float)
    share, everywhere = rng.uniform(0.05, 1), rng.uniform(0, 1)
    chosen: list[int] = []
    for window in sorted(range(20), key=lambda window: (-scores[window], window)):
        if sum(areas[chosen]) < share * sum(areas):
            chosen.append(window)
    found = favouring(areas, scores, share, everywhere)
    for window in range(20):
        part = areas[window] / sum(areas[chosen]) if window in chosen else 0
        assert found[window] == pytest.approx(everywhere * areas[window] / sum(areas) + (1 - everywhere) * part)


@pytest.mark.parametrize(("share", "count"), [(1.0, 10), (0.5, 5), (0.3, 3), (1e-9, 1)])
def test_a_share_of_equal_windows_is_so_many_of_them(share, count):
    assert np.count_nonzero(favouring(np.full(10, 0.1), np.arange(10.0), share, 0)) == count


def test_ranks_are_those_of_scipy():
    from scipy.stats import rankdata

    values = np.random.default_rng(0).integers(0, 8, 30).astype(float)
    np.testing.assert_allclose(ranks(values), (rankdata(values) - 0.5) / 30)


@pytest.fixture
def complexity(patches) -> np.ndarray:
    return np.random.default_rng(1).permutation(len(patches.windows)).astype(float)


def test_simple_windows_first_complex_ones_from_the_switch_on(patches, complexity):
    stages = TwoStages(patches, complexity, Shares(0.25, 0.25, 0.0), switch=500)
    stages.begin(0)
    first, second = set(drawn(stages.draws, 0, 500)), set(drawn(stages.draws, 500, 1000))
    order = np.argsort(complexity)
    assert first == set(order[: len(first)])
    assert second == set(order[-len(second) :])
    assert [stages.stage(number) for number in (0, 499, 500, 501)] == [1, 1, 2, 2]


def test_uncertain_windows_are_drawn_once_they_are_known(patches, complexity):
    stages, count = TwoStages(patches, complexity, Shares(0.5, 0.3, 0.0), switch=100), len(patches.windows)
    stages.begin(0)
    before = set(drawn(stages.draws, 100, 400))
    _, windows = stages.to_measure(5)
    uncertainty = torch.tensor([0.1, 9.0, 9.0, 0.3, 0.2])
    stages.learn(windows, uncertainty, number=400)
    both = {window: (complexity[window] + 0.5) / count for window in range(count)}  # ranks of a permutation
    for window, rank in zip(windows.tolist(), [0.1, 0.8, 0.8, 0.5, 0.3], strict=True):
        both[window] = (both[window] + rank) / 2
    wanted = sorted(both, key=lambda window: (-both[window], window))
    after = set(drawn(stages.draws, 400, 900))
    assert after == set(wanted[: len(after)])
    assert set(drawn(stages.draws, 100, 400)) == before != after


def test_what_is_known_before_the_switch_waits_for_it(patches, complexity):
    stages = TwoStages(patches, complexity, Shares(0.3, 0.3, 0.0), switch=300)
    stages.begin(0)
    simple = set(drawn(stages.draws, 0, 300))
    _, windows = stages.to_measure(100)
    stages.learn(windows, -torch.from_numpy(complexity)[windows], number=40)  # of what is complex, the model is sure
    assert set(drawn(stages.draws, 0, 300)) == simple
    stages.switch_at(200)
    assert set(drawn(stages.draws, 0, 200)) == simple
    assert set(drawn(stages.draws, 200, 400)) != simple
    stages.switch_at(250)  # later than it is
    assert stages.switch == 200


def test_all_windows_are_measured_equally_often_and_never_twice_at_a_time(patches, complexity):
    stages = TwoStages(patches, complexity, Shares(0.5, 0.5, 0.5), switch=0)
    stages.begin(0)
    seen, numbers_seen = [], []
    for _ in range(len(patches.windows)):
        numbers, windows = stages.to_measure(4)
        assert len(set(windows.tolist())) == 4
        stages.learn(windows, torch.rand(4), number=0)
        seen += windows.tolist()
        numbers_seen += numbers.tolist()
    assert np.bincount(seen).tolist() == [4] * len(patches.windows)
    assert numbers_seen == list(range(-1, -1 - len(seen), -1))  # no training sample's
    assert len(stages.to_measure(1000)[1]) == len(patches.windows)


def test_a_saved_curriculum_goes_on(patches, complexity):
    arguments = (patches, complexity, Shares(0.5, 0.3, 0.1), 300)
    stages = TwoStages(*arguments)
    stages.begin(0)
    for number in (64, 320, 400):
        numbers, windows = stages.to_measure(3)
        stages.learn(windows, windows + 0.5, number)
    file = io.BytesIO()
    torch.save(stages.state_dict(), file)
    file.seek(0)
    again = TwoStages(*arguments)
    again.load_state_dict(torch.load(file, weights_only=True))
    for one in (stages, again):
        assert [part.tolist() for part in one.to_measure(3)] == [part.tolist() for part in stages.to_measure(3)]
    for one in (stages, again):
        numbers, windows = one.to_measure(3)
        one.learn(windows, windows + 0.5, 500)
    numbers = torch.arange(0, 800)
    assert torch.equal(stages.draws(numbers), again.draws(numbers))


def stream(patches: CropDataset, batch: int, workers: int = 0, replicas: int = 1, rank: int = 0) -> list[torch.Tensor]:
    """`index` and pixels of 300 batches, with new shares every few batches, `LAG` batches after what was taken."""
    draws = WindowDraws(patches)
    draws.publish(0, patches.areas)
    loader = StreamLoader(patches, StreamSampler(patches, batch, 0, replicas, rank), workers)
    loader.stream.windows = draws
    taken: list[torch.Tensor] = []
    while len(taken) < 120:
        for one in loader:
            taken.append(torch.cat([one.index[:, None].float(), one.hr.flatten(1).float()], 1))
            if len(taken) % 5 == 0:
                shares = only(patches, len(taken) // 5 % len(patches.windows))
                draws.publish(loader.stream.position + LAG * loader.stream.global_batch, shares)
                draws.forget(loader.stream.position)
    return taken[:120]


def test_any_number_of_workers_gives_the_same_stream(patches):
    alone = stream(patches, 4)
    fetched = stream(patches, 4, workers=2)
    assert all(torch.equal(first, second) for first, second in zip(alone, fetched, strict=True))


def test_two_processes_share_what_one_would_take(patches):
    alone = stream(patches, 4)
    ranks_of = [stream(patches, 2, replicas=2, rank=rank) for rank in range(2)]
    for whole, *halves in zip(alone, *ranks_of, strict=True):
        assert torch.equal(whole, torch.cat(halves))


def test_samples_are_cut_from_the_windows_that_were_drawn(patches):
    """A picture's green is the row and its blue the column."""
    batch = patches.__getitems__([(number, number % len(patches.windows)) for number in range(200)])
    assert batch.index.tolist() == list(range(200))
    for number, (red, top, left) in enumerate(batch.hr[:, :, 0, 0].tolist()):
        window = patches.windows[number % len(patches.windows)]
        assert red == window.image
        assert window.top <= top <= window.top + window.height - PATCH
        assert window.left <= left <= window.left + window.width - PATCH
