"""Train a segmenter from coarse labels (Sec. 4).

    python train_seg.py configs/demo/agg.yaml                     # CPU, minutes
    torchrun --nproc_per_node=4 train_seg.py configs/low2high/agg.yaml data.root=tiles run.dir=runs/agg

The same command goes on with a run that was stopped. SIGTERM and Ctrl-C save last.pt after the running step and leave.
"""

import json
import math
from pathlib import Path

import torch
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from tqdm import tqdm

from config import SegmenterConfig
from data.loading import scoring_batches, to_device, training_batches
from data.tiles import Exemplars, ScoringTiles, TileSet, TrainingTiles
from data.transforms import normalize
from losses import (
    appearance,
    cross_entropy_sum,
    discriminator_hinge,
    label_misfit_sum,
    made_map,
    segmenter_hinge,
)
from metrics import class_shares, confusion_matrix, pixels_that_carry, raggedness, ranking, scores
from models import build_discriminator, build_segmenter
from models.observation_table import fit_codes, from_plain, from_yaml, to_plain, to_yaml
from models.regions import aggregate, compositions
from runtime import checkpoint, command, distributed
from runtime.compiling import compiled
from runtime.errors import Refused
from runtime.files import write_text
from runtime.logbook import Logbook, Recent
from runtime.schedule import learning_rate
from runtime.settings import check_resumable, check_same_data, flatten, from_command_line
from runtime.signals import Stopped, StopRequest

WATCHED_TILES = 64  # of the validation split, in the report on the game


def main(config):
    # Processes, device. Weights come from the seed; every draw from (seed, step, position in the global batch).
    ranks = distributed.start(config.run.device)
    device, run_dir = ranks.device, Path(config.run.dir)
    per_rank, micro_batch = config.train.split(ranks.world)
    torch.manual_seed(config.run.seed)

    # Data. Training batches are endless; validation shares do not overlap.
    kind, min_coverage = config.supervision.labels, config.supervision.min_coverage
    measure = "likelihood" if config.supervision.aggregate == "observation" else "mIoU"
    chosen = config.data.regions, config.data.exclude_regions, ("high" if kind == "high" else "low",)
    train_tiles = TileSet(config.data.root, "train", *chosen)
    validation_tiles = TileSet(config.data.root, "validation", *chosen)
    description = train_tiles.described()
    adversarial, exemplars = config.adversarial, None
    resumes = (run_dir / "last.pt").exists()
    fits = config.supervision.aggregate == "observation" and not config.supervision.observation and not resumes
    if adversarial.weight or fits:
        pool = Path(adversarial.exemplar_root or config.data.root)
        own = pool.resolve() == Path(config.data.root).resolve()  # regions are names of this tile set
        exemplars = Exemplars(
            pool,
            description,
            adversarial.exemplars,
            config.run.seed,
            *(chosen[:2] if own else ((), ())),
            shuffle_px=round(description.scale) if adversarial.control == "shuffled" else 0,
        )
    # Beyond the paper: what coarse labels say of their cells, which then carry the labels of that model; else None.
    observation, observed, observation_line = observation_model(config, description, exemplars, resumes)
    if observation:
        for tiles in (train_tiles, validation_tiles):
            tiles.read_low_as(*observation.labels(tiles.description.taxonomy.low))
        observation = observation.to(device)
    exemplars = exemplars if adversarial.weight else None
    train_samples = TrainingTiles(
        train_tiles,
        kind,
        min_coverage,
        batch_size=config.train.batch_size,
        seed=config.run.seed,
        dihedral=config.data.dihedral,
        gain=config.data.gain,
        offset=config.data.offset,
        exemplars=exemplars,
        exemplar_steps=adversarial.steps,
    )
    validation_samples = ScoringTiles(validation_tiles, kind, min_coverage)
    watched_samples = ScoringTiles(validation_tiles, kind, min_coverage, exemplars)
    epoch_steps = max(1, math.ceil(len(train_tiles) / config.train.batch_size))
    steps = config.train.epochs * epoch_steps
    eval_every = config.train.eval_every or epoch_steps
    mean = torch.tensor(description.band_mean, device=device)
    std = torch.tensor(description.band_std, device=device)

    # Networks, optimisers, precision.
    memory_format = torch.channels_last if config.train.channels_last else torch.contiguous_format
    classes, cell_px, how = len(description.taxonomy.names), description.scale**2, config.supervision.aggregate
    init = "none" if resumes else config.model.init
    segmenter, start_line = build_segmenter(config, description.bands, classes, description.scale, init)
    segmenter = segmenter.to(device, memory_format=memory_format)
    scored = segmenter  # what is validated and kept: the weights, or their moving average
    if config.train.average:
        averaged = AveragedModel(segmenter)
        scored = averaged.module
    # The ResNet-18 may have a rate of its own: random decoders shake weights that are good already.
    encoder_rate, fused = config.train.encoder_rate, device.type != "mps"
    slowed = set(segmenter.encoder.parameters()) if encoder_rate != 1 else set()
    groups = [{"params": [p for p in segmenter.parameters() if p not in slowed], "factor": 1.0}]
    groups += [{"params": list(segmenter.encoder.parameters()), "factor": encoder_rate}] if slowed else []
    optimizer = torch.optim.Adam(groups, config.train.learning_rate, fused=fused)
    if adversarial.weight:
        discriminator = build_discriminator(adversarial).to(device, memory_format=memory_format)
        betas = adversarial.beta1, adversarial.beta2
        discriminator_optimizer = torch.optim.Adam(
            discriminator.parameters(), adversarial.learning_rate, betas, fused=fused
        )
    precision, autocast, scaler = distributed.mixed_precision(config.train.precision, device)

    # Resume: networks, optimisers, scaler, step, best score.
    first_step, best = 0, {"step": 0, "score": -1.0}
    facts = {**description.facts(), "tiles": len(train_tiles)}
    if resumes:
        state = checkpoint.load(run_dir / "last.pt")
        with checkpoint.refusing(run_dir / "last.pt"):
            check_resumable(state.get("config"), config, run_dir)
            check_same_data(state["data"], facts, config.data.root, run_dir)
            segmenter.load_state_dict(state["segmenter"])
            optimizer.load_state_dict(state["optimizer"])
            scaler.load_state_dict(state["scaler"])
            first_step, best = state["step"], state["best"]
            if config.train.average:
                averaged.load_state_dict(state["averaged"])
            if adversarial.weight:
                discriminator.load_state_dict(state["discriminator"])
                discriminator_optimizer.load_state_dict(state["discriminator_optimizer"])
    ranks.barrier()
    log = Logbook(run_dir, config, first_step, enabled=ranks.first)
    log.say(
        f"{run_dir}: {len(train_tiles)} training and {len(validation_tiles)} validation tiles of {description.name}, "
        f"{steps} steps of {config.train.batch_size}; {sum(p.numel() for p in segmenter.parameters()):,} weights, "
        f"{start_line}; {device.type}, precision {precision}, {ranks.world} process(es)"
        + (f"; going on from step {first_step}" if first_step else "")
    )
    if observation:
        log.say(f"{run_dir / 'observation.yaml'}: {observation_line}")
        if ranks.first:
            write_text(run_dir / "observation.yaml", to_yaml(observed))

    fast = segmenter
    if config.train.compile:
        shape = micro_batch, description.bands, description.tile_px, description.tile_px
        images = torch.zeros(shape, device=device).contiguous(memory_format=memory_format)
        fast = compiled(segmenter, autocast, [images], log.say)
    segmenter_ddp = ranks.wrap(fast)
    if adversarial.weight:
        discriminator_ddp = ranks.wrap(discriminator)
    pin = device.type == "cuda"
    batches = training_batches(
        train_samples, first_step, steps, per_rank, micro_batch, ranks.rank, config.data.workers, pin
    )
    recent, stop = Recent(ranks), StopRequest()
    progress = tqdm(total=steps, initial=first_step, unit="step", disable=None if ranks.first else True)

    for step in range(first_step, steps):
        # Learning rates and the adversary's weight for this step. The discriminator's rate is constant: it plays on as
        # long as the segmenter moves.
        rate = learning_rate(step, steps, config.train)
        for group in optimizer.param_groups:
            group["lr"] = group["factor"] * rate
        weight = adversarial.weight * min(1.0, (step + 1) / (adversarial.warmup_steps + 1))
        log_now = (step + 1) % config.run.log_every == 0
        micro_batches = [to_device(next(batches), device) for _ in range(per_rank // micro_batch)]
        share = micro_batch / config.train.batch_size  # of a micro-batch in a mean over the global batch

        # Segmenter: accumulate micro-batches. Eq. 1's N is the count of labels in the global batch, known before the
        # first backward: where regions lack labels, a mean of micro-batch means is not the batch mean.
        labels = ranks.sum(torch.full((), float(sum(b["count"] for b in micro_batches)), device=device)).clamp(min=1)
        segmenter.train()
        made_maps = []
        for i, batch in enumerate(micro_batches):
            with ranks.synchronise(segmenter_ddp, i == len(micro_batches) - 1):
                images = normalize(batch["image"], mean, std, batch["color"]).contiguous(memory_format=memory_format)
                with autocast:
                    logits = segmenter_ddp(images)
                logits = logits.to(images.dtype)
                terms = {"loss": segmenter_loss(logits, batch, cell_px, how, observation) / labels}
                if adversarial.weight:  # the discriminator is frozen, in eval mode, called unwrapped
                    discriminator.requires_grad_(False).eval()
                    made = made_map(logits, adversarial.temperature, adversarial.maps)
                    seen = appearance(made, batch["exemplars"][:, :1], classes, adversarial.blur_sigma)
                    with autocast:
                        made_scores = discriminator(seen)
                    terms["segmenter_hinge"] = share * segmenter_hinge(made_scores.to(images.dtype))
                    made_maps.append(made.detach())
                    if log_now:
                        probes = probe_game(logits, terms, weight)
                total = terms["loss"] + weight * terms.get("segmenter_hinge", 0.0)
                scaler.scale(total * ranks.world).backward()  # DDP averages over ranks; each term is already a share
            recent.add(**terms)
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad(set_to_none=True)

        # Discriminator: made maps are detached; real and made share one forward.
        if adversarial.weight and adversarial.control != "frozen":
            discriminator.requires_grad_(True)
            for k in range(adversarial.steps):
                for i, (made, batch) in enumerate(zip(made_maps, micro_batches, strict=True)):
                    real, sigma = batch["exemplars"][:, k : k + 1], adversarial.blur_sigma
                    maps = torch.cat([appearance(m, real, classes, sigma) for m in (real.to(made.dtype), made)])
                    discriminator.train(i == 0)  # spectral norm moves its vectors once a step, not once a micro-batch
                    with ranks.synchronise(discriminator_ddp, i == len(micro_batches) - 1):
                        with autocast:
                            real_scores, made_scores = discriminator_ddp(maps).to(maps.dtype).chunk(2)
                        loss = share * discriminator_hinge(real_scores, made_scores)
                        scaler.scale(loss * ranks.world).backward()
                    part = share / adversarial.steps
                    recent.add(discriminator_hinge=loss / adversarial.steps)
                    recent.add(real_score=part * real_scores.mean(), made_score=part * made_scores.mean())
                scaler.step(discriminator_optimizer)
                scaler.update()
                discriminator_optimizer.zero_grad(set_to_none=True)
        recent.end_step()
        if config.train.average:
            # In a run's first steps the average is of those steps, not of the random weights before them.
            update_average(scored, segmenter, min(config.train.average, step / (step + 9)))
        progress.update()

        # Every log_every steps and before every save: read the losses from the device once; stop if one is not finite.
        done = step + 1
        evaluate_now = done % eval_every == 0 or done == steps
        stop_now = stop.agreed(ranks)  # the signal that asked, or 0
        save_now = evaluate_now or stop_now
        if log_now or save_now:
            record = recent.read(config.train.batch_size)
            networks = [segmenter, *([discriminator] if adversarial.weight else [])]
            checkpoint.require_finite(record, networks if save_now else (), run_dir, done)
            if adversarial.weight and log_now:
                record.update(probes)
            log.write({"step": done, "kind": "train", "learning_rate": rate, **record})

        # Every eval_every steps: all ranks validate; rank 0 saves best.pt if it is one.
        if save_now:
            ranks.average_buffers(segmenter)
            ranks.average_buffers(scored)
            about = {"config": flatten(config), "data": facts, **({"observation": observed} if observed else {})}
        if evaluate_now:
            validation_batches = scoring_batches(
                validation_samples, micro_batch, ranks.rank, ranks.world, config.data.workers, pin
            )
            result = validate(
                scored, validation_batches, classes, mean, std, autocast, cell_px, how, ranks, observation
            )
            score = result["likelihood" if observation else "miou"]
            if adversarial.weight:
                result["game"] = watch_game(
                    scored, discriminator, watched_samples, classes, mean, std, autocast, adversarial, device
                )
            log.write({"step": done, "kind": "validation", **result})
            improved = score > best["score"]
            if improved:
                best = {"step": done, "score": score}
            log.say(
                f"step {done}/{steps}  loss {record['loss']:.4f}  "
                f"validation {measure} on {kind} labels {100 * score:.2f}"
                f"{'  best' if improved else ''}  {record['tiles_per_second']:.1f} tiles/s"
            )
            log.expect(done, steps, epoch_steps)
            if improved and ranks.first:
                state = {"step": done, "best": best, "segmenter": scored.state_dict()}
                checkpoint.save(run_dir / "best.pt", {**about, **state})

        # Then, or when a signal asks to stop: rank 0 saves last.pt.
        if save_now:
            if ranks.first:
                state = {"step": done, "best": best, "segmenter": segmenter.state_dict()}
                state.update(optimizer=optimizer.state_dict(), scaler=scaler.state_dict())
                if config.train.average:
                    state["averaged"] = averaged.state_dict()
                if adversarial.weight:
                    state["discriminator"] = discriminator.state_dict()
                    state["discriminator_optimizer"] = discriminator_optimizer.state_dict()
                checkpoint.save(run_dir / "last.pt", {**about, **state})
            ranks.barrier()
            recent.restart_clock()
        if stop_now and done < steps:
            progress.close()
            raise Stopped(run_dir, done, steps, stop_now)

    progress.close()
    if ranks.first:
        summary = {"name": config.run.name or run_dir.name, "selected_on": f"validation {measure} on {kind} labels"}
        summary.update(steps=steps, best=best)
        write_text(run_dir / "metrics.json", json.dumps(summary, indent=1))


def observation_model(config, description, exemplars, resumes):
    """The model of supervision.aggregate=observation: the run's own, that of a file, or one fitted to exemplar places.

    returns: models.observation.Observation, its table in plain values, and a line that says where it is from and which
             codes count as their merged class; or three times None
    """
    if config.supervision.aggregate != "observation":
        return None, None, None
    names, given = list(description.taxonomy.names), config.supervision.observation
    if resumes:
        path = Path(config.run.dir) / "last.pt"
        table, origin = checkpoint.load(path).get("observation"), "as in the checkpoint"
        model = from_plain(table, names, path)
    elif given:
        model, origin = from_yaml(given, names), f"as in {given}"
        table = to_plain(model, names)
    else:
        native, min_coverage = config.supervision.codes == "native", config.supervision.min_coverage
        shares, codes, native = exemplars.compositions(min_coverage, native)
        merged = exemplars.tiles.description.taxonomy.low
        model, cells, rare = fit_codes(shares, codes, merged, names, native)
        table, origin = to_plain(model, names, cells), f"fitted to {len(codes)} cells of {len(exemplars.chosen)} places"
        if rare:
            listed = ", ".join(f"{code} ({count})" for code, count in rare.items())
            origin += f"; of too few cells, and so no more than their merged class: {listed}"
    return model, table, f"p(label | composition) of {len(model.names)} labels, {origin}"


def segmenter_loss(logits, batch, cell_px, how, observation=None):
    """The objective summed over a micro-batch: Eq. 1 over regions (Sec. 4.3), or over pixels (Low, High)."""
    if "region_index" in batch:
        regions = batch["region_index"], batch["labels"].shape[1]
        if observation:
            return label_misfit_sum(observation(compositions(logits, *regions)), batch["labels"])
        logits = aggregate(logits, *regions, cell_px, how)
    return cross_entropy_sum(logits, batch["labels"])


def probe_game(logits, terms, weight):
    """Norms of the two terms' gradients at the logits, the adversary's times its weight.

    Of one micro-batch on the first rank: compare the two with each other, not with those of other batch sizes.
    """
    (region,) = torch.autograd.grad(terms["loss"], logits, retain_graph=True)
    (adversary,) = torch.autograd.grad(terms["segmenter_hinge"], logits, retain_graph=True)
    return {"gradient_region": region.norm().item(), "gradient_adversary": weight * adversary.norm().item()}


def watch_game(segmenter, discriminator, samples, classes, mean, std, autocast, adversarial, device):
    """Is the game alive? What the discriminator knows, and where predictions differ from exemplars.

    samples: ScoringTiles with exemplars, of which WATCHED_TILES are watched, on every rank the same
    returns: auc:              the chance that a patch of an exemplar scores above one of a prediction; 0.5 is guessing
             gradient_pixels:  share of the pixels that carry 90 % of the adversary's gradient
             ragged_made, ragged_real: share of neighbouring pixels that differ in class
             shares_made, shares_real: of each class
    """
    segmenter.eval()
    discriminator.eval()
    found = {"made": [], "real": [], "made_scores": [], "real_scores": [], "gradient": []}
    # From all over the split: tiles of one region lie together.
    watched = sorted({i * len(samples) // WATCHED_TILES for i in range(WATCHED_TILES)})
    for start in range(0, len(watched), 8):
        batch = to_device(samples.collate([samples[i] for i in watched[start : start + 8]]), device)
        real = batch["exemplars"][:, :1]
        images = normalize(batch["image"], mean, std)
        with torch.no_grad(), autocast:
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


@torch.no_grad()
def update_average(average, network, decay):
    """average <- decay average + (1 - decay) network, of weights and batch norm's statistics; counts are copied.

    AveragedModel's own update sends its counter to the device at every step, and waits for what the device still does.
    """
    pairs = list(zip(average.state_dict().values(), network.state_dict().values(), strict=True))
    floating = [pair for pair in pairs if pair[0].is_floating_point()]
    get_ema_multi_avg_fn(decay)(*map(list, zip(*floating, strict=True)), None)
    for mean, value in pairs:
        if not mean.is_floating_point():
            mean.copy_(value)


@torch.no_grad()
def validate(segmenter, batches, classes, mean, std, autocast, cell_px, how, ranks, observation=None):
    """Scores on labels of the kind that supervises: of pixels, or of region predictions on region labels.

    By an observation model a region is predicted as the class whose codes are together the most probable, and labels
    count as their merged class. Such rows are selected by "likelihood" [ours], the geometric mean of
    p(label | composition): it is what they are trained for, sees all codes, and is steadier over few cells than mIoU.
    """
    segmenter.eval()
    confusion = torch.zeros(classes, classes, dtype=torch.int64, device=ranks.device)
    misfit = torch.zeros(2, device=ranks.device)
    for batch in batches:
        batch = to_device(batch, ranks.device)
        images = normalize(batch["image"], mean, std)
        with autocast:
            logits = segmenter(images)
        logits = logits.to(images.dtype)
        if observation:
            log_probs = observation(compositions(logits, batch["region_index"], batch["labels"].shape[1]))
            misfit += torch.stack([label_misfit_sum(log_probs, batch["labels"]), misfit.new_tensor(batch["count"])])
            logits, batch["labels"] = log_probs[:, -classes:], observation.classes_of(batch["labels"])
        elif "region_index" in batch:
            logits = aggregate(logits, batch["region_index"], batch["labels"].shape[1], cell_px, how)
        confusion += confusion_matrix(logits.argmax(dim=1), batch["labels"], classes)
    if not ranks.sum(confusion).any():
        raise Refused(
            "no label of the validation split supervises: either all are ignored, or no cell lies whole in a tile "
            "(supervision.min_coverage=0.5 takes cells that lie half in it)"
        )
    result = scores(confusion)
    result = {key: result[key] for key in ("accuracy", "macro_f1", "miou")}
    if observation:
        total, count = ranks.sum(misfit).tolist()
        result["likelihood"] = math.exp(-total / count)
    return result


if __name__ == "__main__":
    command.run(lambda: main(from_command_line(SegmenterConfig, __doc__)), distributed.stop)
