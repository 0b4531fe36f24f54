import numpy as np
import pytest
import torch

from metrics import confusion_matrix, scores


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
    assert confusion.sum() == 460
    assert [result["accuracy"], result["macro_f1"], result["miou"]] == pytest.approx(expected)
    assert (result["per_class"][2]["iou"] is None) == (absent == "both")


def test_rows_are_truth_and_columns_prediction():
    confusion = confusion_matrix(torch.tensor([0, 1, 1]), torch.tensor([0, 0, 1]), 2)
    assert confusion.tolist() == [[1, 1], [0, 1]]


def test_nothing_labelled_scores_zero_and_does_not_fail():
    result = scores(confusion_matrix(torch.zeros(3, dtype=torch.long), torch.full((3,), 255), 2))
    assert result["miou"] == 0 and result["accuracy"] == 0
