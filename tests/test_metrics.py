from types import SimpleNamespace

import numpy as np
import pytest
import torch

import evaluate
import metrics
from metrics import Tally, border_counts, border_f1, confusion_matrix, raggedness, ranking, selection_scores
from reports.tables import as_markdown, as_values, rows_of


def scores(confusion):
    tally = Tally(range(len(confusion)))
    tally.counts["confusion"] = confusion
    return tally.scores()


def slow_scores(predicted, truth, num_classes):
    """Sec. 5, class by class and pixel by pixel: F1 is the harmonic mean of precision and recall."""
    pairs = [(p, t) for p, t in zip(predicted, truth, strict=True) if t != 255]
    f1, iou = [], []
    for c in range(num_classes):
        both = sum(p == c and t == c for p, t in pairs)
        predicted_c = sum(p == c for p, _ in pairs)
        true_c = sum(t == c for _, t in pairs)
        if predicted_c + true_c == 0:
            continue
        precision = both / predicted_c if predicted_c else 0
        recall = both / true_c if true_c else 0
        f1.append(2 * precision * recall / (precision + recall) if both else 0)
        iou.append(both / (predicted_c + true_c - both))
    return sum(p == t for p, t in pairs) / len(pairs), sum(f1) / len(f1), sum(iou) / len(iou)


@pytest.mark.parametrize("absent", [None, "truth", "both"])
def test_scores_equal_a_slow_reference(absent):
    rng = np.random.default_rng(0)
    truth, predicted = rng.integers(0, 4, 500), rng.integers(0, 4, 500)
    if absent:
        truth[truth == 2] = 1
    if absent == "both":
        predicted[predicted == 2] = 0
    truth[:40] = 255
    expected = slow_scores(predicted, truth, 4)
    confusion = confusion_matrix(torch.tensor(predicted), torch.tensor(truth), 4)
    result = scores(confusion)
    assert confusion.sum() == 460 and scores(0 * confusion)["miou"] == 0
    assert confusion[1, 3] == ((truth == 1) & (predicted == 3)).sum()
    assert [result["accuracy"], result["macro_f1"], result["miou"]] == pytest.approx(expected)
    assert (result["per_class"][2]["iou"] is None) == (absent == "both")


def test_a_false_pixel_of_a_class_that_truth_lacks_is_a_class_of_its_own_in_tables_and_not_when_selecting():
    truth = torch.tensor([1, 1, 1, 1, 2, 2, 3, 255])
    right = confusion_matrix(torch.tensor([1, 1, 1, 1, 2, 2, 3, 0]), truth, 4)
    water = confusion_matrix(torch.tensor([0, 1, 1, 1, 2, 2, 3, 0]), truth, 4)
    assert scores(right)["miou"] == selection_scores(right)["miou"] == selection_scores(right)["macro_f1"] == 1
    assert scores(water)["miou"] == pytest.approx((0 + 3 / 4 + 1 + 1) / 4)
    assert selection_scores(water)["miou"] == pytest.approx((3 / 4 + 1 + 1) / 3)  # forest loses what it missed
    assert selection_scores(water)["macro_f1"] == pytest.approx((6 / 7 + 1 + 1) / 3)
    assert selection_scores(water)["accuracy"] == scores(water)["accuracy"] == 6 / 7


def test_a_score_takes_a_function_and_one_line(monkeypatch):
    def worst_iou(confusion):
        _, iou, present = metrics.of_classes(confusion)
        return iou[present].min().item()

    def row(name):
        tally = Tally(["water", "field"])
        tally.add(torch.tensor([[[0, 1, 1, 1]]]), torch.tensor([[[0, 0, 1, 1]]]))
        return {"name": name, **evaluate.report(tally)}

    monkeypatch.setitem(metrics.SCORES, "worst_iou", ("worst IoU", "confusion", worst_iou))
    assert row("Low")["worst_iou"] == 0.5
    head, line = evaluate.table([row("Low")]).splitlines()
    assert len(head) == len(line) and "worst IoU" in head and " 50.00" in line
    rows = rows_of({"set": [[row("Low"), row("Agg")]]})
    head, _, *lines = as_markdown(("row",), rows).splitlines()
    assert "| worst IoU |" in head and {line.count("|") for line in lines} == {head.count("|")}
    assert [values["worst_iou"] for values in as_values(("row",), rows)] == [[0.5], [0.5]]


def slow_borders(labels, truth):
    """Pixels whose right or lower neighbour has another class; those beside ignored ones are left out."""
    found, (height, width) = set(), labels.shape
    for row, col in np.ndindex(height, width):
        beside = [(r, c) for r, c in ((row, col + 1), (row + 1, col)) if r < height and c < width]
        if any(truth[at] == 255 for at in [(row, col), *beside]):
            continue
        if any(labels[at] != labels[row, col] for at in beside):
            found.add((row, col))
    return found


def slow_border_counts(predicted, truth, rows, within_px):
    """One map's border pixels, and those with one of the other map within some rows and columns."""
    ours, theirs = slow_borders(predicted, truth), slow_borders(truth, truth)
    counts = []
    for some, others in ((ours, theirs), (theirs, ours)):
        some = [at for at in some if at[0] in rows]
        near = [(r, c) for r, c in some if any(max(abs(r - y), abs(c - x)) <= within_px for y, x in others)]
        counts += [len(some), len(near)]
    return counts


def patchy(rng, height, width, block, ignored=0.0):
    """A (height, width) map of blocks of four classes; some pixels are ignored."""
    blocks = rng.integers(0, 4, (-(-height // block), -(-width // block)))
    labels = blocks.repeat(block, 0).repeat(block, 1)[:height, :width]
    return np.where(rng.random((height, width)) < ignored, 255, labels)


@pytest.mark.parametrize("within_px", [0, 2])
@pytest.mark.parametrize("ignored", [0.0, 0.05])
@pytest.mark.parametrize("rows", [slice(None), slice(3, 11)])
def test_border_counts_equal_a_slow_loop(rows, ignored, within_px):
    rng = np.random.default_rng(1)
    maps = [(patchy(rng, 17, 23, 5), patchy(rng, 17, 23, 6, ignored)) for _ in range(3)]
    expected = sum(np.array(slow_border_counts(*pair, range(17)[rows], within_px)) for pair in maps)
    predicted, truth = (torch.tensor(np.stack(some)) for some in zip(*maps, strict=True))
    assert border_counts(predicted, truth, rows, within_px).tolist() == expected.tolist()
    assert 0 < expected[1] < expected[0] and 0 < expected[3] < expected[2]


def test_a_border_within_two_pixels_is_found_and_one_farther_off_is_not():
    truth = torch.zeros(1, 20, 20, dtype=torch.int64)
    truth[..., 10:] = 1
    scored = [border_f1(border_counts(truth.roll(shift, dims=2)[:, :, 5:15], truth[:, :, 5:15])) for shift in range(5)]
    assert scored == [1, 1, 1, 0, 0]
    assert border_f1(torch.tensor([10, 5, 8, 6])) == pytest.approx(2 * 0.5 * 0.75 / 1.25)  # of precision and recall
    assert border_f1(torch.tensor([0, 0, 8, 0])) == 0 and border_f1(torch.tensor([0, 0, 0, 0])) == 1


def test_counts_of_ranks_are_added_up():
    tally = Tally(["water", "field"])
    tally.add(torch.tensor([[[0, 1, 1, 1]]]), torch.tensor([[[0, 0, 1, 1]]]))
    before, scores_before = tally.counts, tally.scores()
    tally.sum_over(SimpleNamespace(sum=lambda tensor: 2 * tensor))
    assert all(torch.equal(tally.counts[name], 2 * before[name]) for name in ("confusion", "border"))
    assert tally.scores() == scores_before


def test_ranking_equals_a_double_loop_and_a_tie_counts_half():
    higher, lower = torch.tensor([0.5, 1.0, 1.0, -2.0, 3.0, 0.25]), torch.tensor([1.0, 0.5, 0.0, 4.0, 1.0])
    wins = [1.0 if h > low else 0.5 if h == low else 0.0 for h in higher.tolist() for low in lower.tolist()]
    assert ranking(higher, lower) == pytest.approx(sum(wins) / len(wins)) and ranking(higher, higher) == 0.5
    assert ranking(lower + 10, lower) == 1 and ranking(lower - 10, lower) == 0


def test_raggedness_equals_a_slow_loop_over_neighbours_and_class_shares_a_count():
    maps = patchy(np.random.default_rng(4), 13, 17, 3, 0.1)[None]
    differ, pairs = 0, 0
    for row, col in np.ndindex(13, 17):
        for r, c in ((row, col + 1), (row + 1, col)):
            if r < 13 and c < 17 and 255 not in (maps[0, row, col], maps[0, r, c]):
                differ, pairs = differ + (maps[0, row, col] != maps[0, r, c]), pairs + 1
    assert raggedness(torch.from_numpy(maps)) == pytest.approx(differ / pairs)
    nothing = torch.full((1, 4, 4), 255)
    assert raggedness(nothing) == 0 and metrics.class_shares(nothing, 3) == [0, 0, 0]
    assert metrics.class_shares(torch.tensor([[[0, 2, 2], [255, 2, 255]]]), 4) == [0.25, 0, 0.75, 0]
