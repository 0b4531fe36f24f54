"""Is the game of Sec. 4.4 alive? What the log says of it while it is played [ours]."""

import torch

from data.loading import to_device
from data.transforms import normalize
from losses import appearance, made_map
from metrics import class_shares, raggedness, ranking

WATCHED_TILES = 64  # of the validation split, in the report


def probe_game(logits, region_loss, hinge, weight):
    """Norms of the two terms' gradients at the logits, the adversary's times its weight.

    Of one micro-batch on the first rank: compare the two with each other, not with those of other batch sizes.
    """
    (region,) = torch.autograd.grad(region_loss, logits, retain_graph=True)
    (adversary,) = torch.autograd.grad(hinge, logits, retain_graph=True)
    return {"gradient_region": region.norm().item(), "gradient_adversary": weight * adversary.norm().item()}


@torch.no_grad()
def watch_game(task, segmenter, discriminator, samples):
    """What the discriminator knows, and where predictions differ from exemplars.

    task:    supervision.Task
    samples: ScoringTiles with exemplars, of which WATCHED_TILES are watched, on every rank the same
    returns: auc:              the chance that a patch of an exemplar scores above one of a prediction; 0.5 is guessing
             ragged_made, ragged_real: share of neighbouring pixels that differ in class
             shares_made, shares_real: of each class
    """
    segmenter.eval()
    adversarial, classes = task.config.adversarial, task.classes
    found = {"made": [], "real": [], "made_scores": [], "real_scores": []}
    # From all over the split: tiles of one region lie together.
    watched = sorted({i * len(samples) // WATCHED_TILES for i in range(WATCHED_TILES)})
    for start in range(0, len(watched), 8):
        batch = to_device(samples.collate([samples[i] for i in watched[start : start + 8]]), task.mean.device)
        real = batch["exemplars"]
        images = normalize(batch["image"], task.mean, task.std)
        with task.autocast:
            logits = segmenter(images)
        logits = logits.to(images.dtype)
        pair = {"made": made_map(logits, adversarial.temperature, adversarial.maps), "real": real.to(logits.dtype)}
        for kind, maps in pair.items():
            scores = discriminator(appearance(maps, real, classes, adversarial.blur_sigma))
            found[f"{kind}_scores"].append(scores.flatten())
        found["made"].append(logits.argmax(dim=1))
        found["real"].append(real[:, 0])
    found = {key: torch.cat(values).cpu() for key, values in found.items()}
    return {
        "auc": ranking(found["real_scores"], found["made_scores"]),
        **{f"ragged_{kind}": raggedness(found[kind]) for kind in ("made", "real")},
        **{f"shares_{kind}": class_shares(found[kind], classes) for kind in ("made", "real")},
    }
