"""Train a segmenter from coarse labels (Sec. 4).

    python train_seg.py configs/demo/agg.yaml                     # CPU, minutes
    torchrun --nproc_per_node=4 train_seg.py configs/low2high/agg.yaml data.root=tiles run.dir=runs/agg

The same command goes on with a run that was stopped.
"""

import contextlib
import json
import math
from pathlib import Path

import torch
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from tqdm import tqdm

from config import ConfigError, SegmenterConfig, check_resumable, flatten, from_command_line, to_yaml
from data.tiles import (
    EXPECTED_ERRORS,
    ScoringTiles,
    TileSet,
    TrainingTiles,
    scoring_batches,
    to_device,
    training_batches,
)
from data.transforms import normalize
from losses import cross_entropy_sum
from metrics import confusion_matrix, scores
from models import InitError, build_segmenter
from models.regions import aggregate
from runtime import checkpoint, command, distributed
from runtime.logbook import Logbook, Recent


class TrainingError(Exception):
    """A run that cannot go on; one line."""


def main(config):
    # Processes, device. Weights come from the seed; every draw from (seed, step, position in the global batch).
    ranks = distributed.start(config.run.device)
    device, run_dir = ranks.device, Path(config.run.dir)
    per_rank, micro_batch = split_batch(config.train, ranks.world)
    torch.manual_seed(config.run.seed)

    # Data. Training batches are endless; validation shares do not overlap.
    kind, min_coverage = config.supervision.labels, config.supervision.min_coverage
    chosen = config.data.regions, config.data.exclude_regions, ("high" if kind == "high" else "low",)
    train_tiles = TileSet(config.data.root, "train", *chosen)
    validation_tiles = TileSet(config.data.root, "validation", *chosen)
    description = train_tiles.description
    train_samples = TrainingTiles(
        train_tiles,
        kind,
        min_coverage,
        batch_size=config.train.batch_size,
        seed=config.run.seed,
        dihedral=config.data.dihedral,
        gain=config.data.gain,
        offset=config.data.offset,
    )
    validation_samples = ScoringTiles(validation_tiles, kind, min_coverage)
    epoch_steps = max(1, math.ceil(len(train_tiles) / config.train.batch_size))
    steps = config.train.epochs * epoch_steps
    eval_every = config.train.eval_every or epoch_steps
    mean = torch.tensor(description.band_mean, device=device)
    std = torch.tensor(description.band_std, device=device)

    # Network, optimiser, precision.
    memory_format = torch.channels_last if config.train.channels_last else torch.contiguous_format
    classes = len(description.taxonomy.names)
    segmenter, start_line = build_segmenter(config.model, description.bands, classes)
    segmenter = segmenter.to(device, memory_format=memory_format)
    scored = segmenter  # what is validated and kept: the weights, or their moving average
    if config.train.average:
        averaged = AveragedModel(segmenter, multi_avg_fn=get_ema_multi_avg_fn(config.train.average), use_buffers=True)
        scored = averaged.module
    optimizer = torch.optim.Adam(segmenter.parameters(), config.train.learning_rate, fused=device.type != "mps")
    precision = config.train.precision
    if precision == "auto":
        precision = "bf16" if device.type == "cuda" else "off"
    half = torch.float16 if precision == "fp16" else torch.bfloat16
    autocast = torch.autocast(device.type, half, enabled=precision != "off")
    scaler = torch.amp.GradScaler(device.type, enabled=precision == "fp16")

    # Resume: network, optimiser, scaler, step, best score.
    first_step, best = 0, {"step": 0, "score": -1.0}
    if (run_dir / "last.pt").exists():
        state = checkpoint.load(run_dir / "last.pt")
        check_resumable(state["config"], config, run_dir)
        segmenter.load_state_dict(state["segmenter"])
        optimizer.load_state_dict(state["optimizer"])
        scaler.load_state_dict(state["scaler"])
        first_step, best = state["step"], state["best"]
        if config.train.average:
            averaged.load_state_dict(state["averaged"])
    ranks.barrier()
    if ranks.first:
        run_dir.mkdir(parents=True, exist_ok=True)
        checkpoint.remove_leftovers(run_dir)
        (run_dir / "config.yaml").write_text(to_yaml(config))
    log = Logbook(run_dir, first_step, enabled=ranks.first)
    log.say(
        f"{run_dir}: {len(train_tiles)} training and {len(validation_tiles)} validation tiles of {description.name}, "
        f"{steps} steps of {config.train.batch_size}; {sum(p.numel() for p in segmenter.parameters()):,} weights, "
        f"{start_line}; {device.type}, precision {precision}, {ranks.world} process(es)"
        + (f"; going on from step {first_step}" if first_step else "")
    )

    module = segmenter
    if ranks.world > 1:
        # Batch norm's running statistics stay each rank's own and are averaged before they are used or saved.
        module = torch.nn.parallel.DistributedDataParallel(segmenter, broadcast_buffers=False)
    pin = device.type == "cuda"
    batches = training_batches(
        train_samples, first_step, steps, per_rank, micro_batch, ranks.rank, config.data.workers, pin
    )
    recent = Recent(ranks)
    progress = tqdm(total=steps, initial=first_step, unit="step", disable=None if ranks.first else True)

    for step in range(first_step, steps):
        # Learning rate for this step.
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, steps, config.train)

        # Segmenter: accumulate micro-batches. Eq. 1's N is the count of labels in the global batch, known before the
        # first backward: where regions lack labels, a mean of micro-batch means is not the batch mean.
        micro_batches = [to_device(next(batches), device) for _ in range(per_rank // micro_batch)]
        labels = ranks.sum(torch.tensor(float(sum(b["count"] for b in micro_batches)), device=device)).clamp(min=1)
        segmenter.train()
        for i, batch in enumerate(micro_batches):
            last = i == len(micro_batches) - 1
            with contextlib.nullcontext() if last or ranks.world == 1 else module.no_sync():
                images = normalize(batch["image"], mean, std, batch["color"]).contiguous(memory_format=memory_format)
                with autocast:
                    logits = module(images)
                loss = segmenter_loss(logits.to(images.dtype), batch, config.supervision.aggregate) / labels
                scaler.scale(loss * ranks.world).backward()  # DDP averages over ranks; the loss is already a share
            recent.add(loss=loss.detach())
        recent.end_step()
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad(set_to_none=True)
        if config.train.average:
            averaged.update_parameters(segmenter)
        progress.update()

        # Every log_every steps and before every save: read the losses from the device once; stop if one is not finite.
        done = step + 1
        evaluate_now = done % eval_every == 0 or done == steps
        if done % config.run.log_every == 0 or evaluate_now:
            record = recent.read(config.train.batch_size)
            if not math.isfinite(record["loss"]) or (evaluate_now and not all_finite(segmenter)):
                raise TrainingError(
                    f"{run_dir}: the loss is not finite at step {done} ({record['loss']}); the last good checkpoint "
                    f"{'stays as last.pt' if (run_dir / 'last.pt').exists() else 'does not exist yet'}; a lower "
                    f"train.learning_rate, as {config.train.learning_rate / 10:g}, is the first thing to try"
                )
            log.write({"step": done, "kind": "train", "learning_rate": optimizer.param_groups[0]["lr"], **record})

        # Every eval_every steps: all ranks validate; rank 0 saves best.pt if it is one, then last.pt.
        if evaluate_now:
            validation_batches = scoring_batches(
                validation_samples, micro_batch, ranks.rank, ranks.world, config.data.workers, pin
            )
            ranks.average_buffers(segmenter)
            ranks.average_buffers(scored)
            result = validate(
                scored, validation_batches, classes, mean, std, autocast, config.supervision.aggregate, ranks
            )
            score = result["miou"]
            log.write({"step": done, "kind": "validation", **result})
            improved = score > best["score"]
            if improved:
                best = {"step": done, "score": score}
            log.say(
                f"step {done}/{steps}  loss {record['loss']:.4f}  validation mIoU on {kind} labels {100 * score:.2f}"
                f"{'  best' if improved else ''}  {record['tiles_per_second']:.1f} tiles/s"
            )
            if ranks.first:
                facts = {"step": done, "best": best, "config": flatten(config), "data": description_facts(description)}
                if improved:
                    checkpoint.save(run_dir / "best.pt", {**facts, "segmenter": scored.state_dict()})
                state = {"segmenter": segmenter.state_dict(), "optimizer": optimizer.state_dict()}
                state["scaler"] = scaler.state_dict()
                if config.train.average:
                    state["averaged"] = averaged.state_dict()
                checkpoint.save(run_dir / "last.pt", {**facts, **state})
            ranks.barrier()
            recent.restart_clock()

    progress.close()
    if ranks.first:
        summary = {"name": config.run.name or run_dir.name, "selected_on": f"validation mIoU on {kind} labels"}
        summary.update(steps=steps, best=best)
        (run_dir / "metrics.json").write_text(json.dumps(summary, indent=1))


def segmenter_loss(logits, batch, how):
    """The objective summed over a micro-batch: Eq. 1 over regions (Sec. 4.3), or over pixels (Low, High)."""
    if "regions" in batch:
        logits = aggregate(logits, batch["regions"], how)
    return cross_entropy_sum(logits, batch["labels"])


@torch.no_grad()
def validate(segmenter, batches, classes, mean, std, autocast, how, ranks):
    """Scores on labels of the kind that supervises: of pixels, or of region predictions on region labels."""
    segmenter.eval()
    confusion = torch.zeros(classes, classes, dtype=torch.int64, device=ranks.device)
    for batch in batches:
        batch = to_device(batch, ranks.device)
        images = normalize(batch["image"], mean, std)
        with autocast:
            logits = segmenter(images)
        logits = logits.to(images.dtype)
        if "regions" in batch:
            logits = aggregate(logits, batch["regions"], how)
        confusion += confusion_matrix(logits.argmax(dim=1), batch["labels"], classes)
    result = scores(ranks.sum(confusion))
    return {key: result[key] for key in ("accuracy", "macro_f1", "miou")}


def split_batch(train, world):
    """The global batch -> (tiles of a step on one rank, tiles of one forward pass)."""
    per_rank, rest = divmod(train.batch_size, world)
    if rest:
        nearest = max(1, round(train.batch_size / world)) * world
        raise ConfigError(f"train.batch_size={train.batch_size} does not divide among {world} ranks; {nearest} does")
    micro_batch = train.micro_batch or per_rank
    if per_rank % micro_batch:
        nearest = max(m for m in range(1, min(per_rank, micro_batch) + 1) if per_rank % m == 0)
        raise ConfigError(f"train.micro_batch={micro_batch} does not divide {per_rank} tiles a process; {nearest} does")
    return per_rank, micro_batch


def learning_rate(step, steps, train):
    """Rate of one step: a linear rise over warmup_steps, then constant, or half a cosine down to 0 at the last step."""
    rate = train.learning_rate
    if train.schedule == "cosine":
        rate *= 0.5 * (1 + math.cos(math.pi * step / steps))
    return rate * min(1.0, (step + 1) / (train.warmup_steps + 1))


def all_finite(module):
    return bool(torch.stack([p.detach().isfinite().all() for p in module.parameters()]).all())


def description_facts(description):
    """What a checkpoint says of its data, in plain values, so that scoring and mapping ask for nothing twice."""
    taxonomy = description.taxonomy
    return {
        "name": description.name,
        "bands": description.bands,
        "band_mean": list(description.band_mean),
        "band_std": list(description.band_std),
        "image_gsd": description.image_gsd,
        "classes": [{"name": n, "color": list(c)} for n, c in zip(taxonomy.names, taxonomy.colors, strict=True)],
    }


if __name__ == "__main__":
    errors = (ConfigError, TrainingError, InitError, checkpoint.CheckpointError, distributed.DeviceError)
    command.run(lambda: main(from_command_line(SegmenterConfig, __doc__)), (*errors, *EXPECTED_ERRORS))
