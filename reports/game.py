"""Is the game of Sec. 4.4 alive? What the log says of it while it is played [ours]."""

import torch

from data.loading import to_device
from data.transforms import normalize
from losses import appearance, made_map, segmenter_hinge
from metrics import class_shares, pixels_that_carry, raggedness, ranking

WATCHED_TILES = 64  # of the validation split, in the report


def probe_game(logits, region_loss, hinge, weight):
    """Norms of the two terms' gradients at the logits, the adversary's times its weight.

    Of one micro-batch on the first rank: compare the two with each other, not with those of other batch sizes.
    """
    (region,) = torch.autograd.grad(region_loss, logits, retain_graph=True)
    (adversary,) = torch.autograd.grad(hinge, logits, retain_graph=True)
    return {"gradient_region": region.norm().item(), "gradient_adversary": weight * adversary.norm().item()}


def watch_game(task, segmenter, discriminator, samples):
    """What the discriminator knows, and where predictions differ from exemplars.

    task:    supervision.Task
    samples: ScoringTiles with exemplars, of which WATCHED_TILES are watched, on every rank the same
    returns: auc:              the chance that a patch of an exemplar scores above one of a prediction; 0.5 is guessing
             gradient_pixels:  share of the pixels that carry 90 % of the adversary's gradient
             ragged_made, ragged_real: share of neighbouring pixels that differ in class
             shares_made, shares_real: of each class
    """
    segmenter.eval()
    adversarial, classes = task.config.adversarial, task.classes
    found = {"made": [], "real": [], "made_scores": [], "real_scores": [], "gradient": []}
    # From all over the split: tiles of one region lie together.
    watched = sorted({i * len(samples) // WATCHED_TILES for i in range(WATCHED_TILES)})
    for start in range(0, len(watched), 8):
        batch = to_device(samples.collate([samples[i] for i in watched[start : start + 8]]), task.mean.device)
        real = batch["exemplars"]
        images = normalize(batch["image"], task.mean, task.std)
        with torch.no_grad(), task.autocast:
            logits = segmenter(images)
        logits = logits.to(images.dtype).requires_grad_(True)
        made = made_map(logits, adversarial.temperature, adversarial.maps)
        # Not under autocast: the gradients of a mean over thousands of patches are too small for float16.
        made_scores = discriminator(appearance(made, real, classes, adversarial.blur_sigma))
        with torch.no_grad():
            real_scores = discriminator(appearance(real.to(made.dtype), real, classes, adversarial.blur_sigma))
        (gradient,) = torch.autograd.grad(segmenter_hinge(made_scores), logits)
        found["gradient"].append(gradient.norm(dim=1))
        found["made"].append(logits.detach().argmax(dim=1))
        found["real"].append(real[:, 0])
        found["made_scores"].append(made_scores.detach().flatten())
        found["real_scores"].append(real_scores.flatten())
    found = {key: torch.cat(values).cpu() for key, values in found.items()}
    return {
        "auc": ranking(found["real_scores"], found["made_scores"]),
        "gradient_pixels": pixels_that_carry(found["gradient"], 0.9),
        **{f"ragged_{kind}": raggedness(found[kind]) for kind in ("made", "real")},
        **{f"shares_{kind}": class_shares(found[kind], classes) for kind in ("made", "real")},
    }
