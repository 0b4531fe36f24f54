"""Train a segmenter from coarse labels (Sec. 4).

    python train_seg.py configs/demo/agg.yaml                     # CPU, minutes
    torchrun --nproc_per_node=4 train_seg.py configs/low2high/agg.yaml data.root=tiles run.dir=runs/agg

To resume a stopped run, give the same command again. SIGTERM and Ctrl-C finish the current step, save last.pt and exit.
"""

import math

import torch
from torch.optim.swa_utils import AveragedModel

from config import SegmenterConfig
from data.loading import scoring_batches, to_device, training_batches
from data.transforms import normalize
from losses import appearance, cross_entropy_sum, discriminator_hinge, made_map, segmenter_hinge
from metrics import confusion_matrix, selection_scores
from models import Discriminator, build_segmenter
from models.averaging import update_average
from models.regions import aggregate
from reports.curves import save_run_curves
from reports.game import probe_game, watch_game
from runtime import command, distributed
from runtime.errors import require
from runtime.run import Run
from runtime.schedule import learning_rate
from runtime.settings import from_command_line
from supervision import Supervision, Task


def main(config):
    # Processes, device. Weights come from the seed; every draw from (seed, step, position in the global batch).
    ranks = distributed.start(config.run.device)
    device = ranks.device
    per_rank, micro_batch = config.train.split(ranks.world)
    torch.manual_seed(config.run.seed)
    run = Run(config, ranks)

    # Data. Training batches go on to the run's end; validation shares do not overlap, so nothing is scored twice.
    data = Supervision(config, run.saved)
    description = data.description
    tiles = len(data.train.tiles)
    alone = micro_batch == 1 and description.tile_px <= 32  # batch norm would see one value a channel
    needs = "a forward pass needs two tiles of 32 px, or one of 64 px, for batch norm"
    require(not alone, f"train.batch_size or train.micro_batch: {needs}")
    # best.pt is chosen on labels of the kind that supervises: fine ones would be a teacher that coarse rows lack.
    # Rows beyond the paper read shares of classes: likelihood sees all codes, and is steadier over few cells [ours].
    measure = "likelihood" if data.observed else "mIoU"
    selected_on = f"validation {measure} on {config.supervision.labels}"

    # Networks. The discriminator's weights are drawn last: rows with and without an adversary start alike.
    task = Task(config, ranks, description, data.observed)
    game = config.adversarial if config.adversarial.weight else None
    init = config.model.init if run.saved is None else "none"  # weights that last.pt holds need no other start
    segmenter, encoder_start = build_segmenter(config, description.bands, task.classes, description.scale, init)
    start = encoder_start if run.saved is None else "all from last.pt"
    segmenter = segmenter.to(device, memory_format=task.memory_format)
    averaged = AveragedModel(segmenter) if config.train.average else None
    scored = averaged.module if averaged else segmenter  # what is validated and kept as best.pt
    discriminator = None
    if game:
        discriminator = Discriminator(game.width, game.layers).to(device, memory_format=task.memory_format)
    optimizer, discriminator_optimizer = optimizers(config, segmenter, discriminator)

    # Resume. These are the parts of last.pt by name; a run goes without those that are None.
    parts = {
        "segmenter": segmenter,
        "optimizer": optimizer,
        "scaler": task.scaler,
        "averaged": averaged,
        "discriminator": discriminator,
        "discriminator_optimizer": discriminator_optimizer,
    }
    # No generator's state is among them: draws are functions of the step, so a run goes on bit for bit (on a CPU).
    facts = {**description.facts(), "tiles": tiles, **(data.watched.exemplars.facts() if game else {})}
    about = {"data": facts, "observation": data.observed and data.observed.table}
    run.begin(parts, about, items=tiles, best={"step": 0, "score": -1.0})
    run.introduce(
        f"{tiles} training and {len(data.validation)} validation tiles of {description.name}",
        f"{sum(p.numel() for p in segmenter.parameters()):,} weights, {start}",
        task.precision,
    )
    if data.observed:
        data.observed.keep(run)

    # Wrapped for DDP after loading: last.pt keeps the networks' own names, whatever the number of processes.
    segmenter_ddp = ranks.wrap(segmenter)
    discriminator_ddp = ranks.wrap(discriminator) if game else None
    loading = {"workers": config.data.workers, "pin_memory": device.type == "cuda"}  # pinned where a GPU copies from it
    batches = training_batches(data.train, run.done, run.steps, per_rank, micro_batch, ranks.rank, **loading)

    for step in run.each_step():
        # Learning rate of this step. The discriminator's is constant: it plays on as long as the segmenter moves.
        rate = set_rates(optimizer, step, run.steps, config.train)

        # The two players move by turns, the segmenter first. Both moves are about the same micro-batches.
        micro_batches = [to_device(next(batches), device) for _ in range(per_rank // micro_batch)]
        segmenter.train()  # validation left it in eval mode
        made_maps, probes = update_segmenter(task, run, step, micro_batches, segmenter_ddp, optimizer, discriminator)
        if game and game.control != "frozen":  # the control keeps a teacher that knows nothing
            update_discriminator(task, run, micro_batches, made_maps, discriminator_ddp, discriminator_optimizer)
        if averaged:
            # In a run's first steps the average is of those steps, not of the random weights before them.
            update_average(scored, segmenter, min(config.train.average, step / (step + 9)))

        # Every log_every steps and before every save: read the losses from the device once; stop if one is not finite.
        run.end_step(step, [segmenter, discriminator] if game else [segmenter], learning_rate=rate, **probes)
        if run.save_now:
            for network in dict.fromkeys((segmenter, scored)):  # batch norm's statistics were each rank's own
                ranks.average_buffers(network)

        # Every eval_every steps: all ranks validate; rank 0 saves best.pt if it is one.
        if run.evaluate_now:
            shares = scoring_batches(data.validation, micro_batch, ranks.rank, ranks.world, **loading)
            result = validate(task, scored, shares)
            if game:  # is it alive? AUC, raggedness, gradients: docs/paper.md says how to read them
                result["game"] = watch_game(task, scored, discriminator, data.watched)
            score = result[measure.lower()]
            improved = score > run.best["score"]
            if improved:
                run.best = {"step": run.done, "score": score}
            if result["classes"] == 1 and not run.validations:
                run.say(f"warning: the validation labels contain only one class: {measure} says nothing about others")
            run.validated(result, f"{selected_on} {100 * score:.2f}")
            run.draw(save_run_curves)
            if improved:
                run.save("best.pt", {"segmenter": scored})

        # Then, or when a signal asks to stop: rank 0 saves last.pt.
        if run.save_now:
            run.save_last()

    run.complete(selected_on=selected_on)


def optimizers(config, segmenter, discriminator):
    """-> Adam of each; None without a discriminator."""
    fused = next(segmenter.parameters()).device.type != "mps"  # one kernel for all tensors, where there is one
    # Two parts may have a rate of their own. The ResNet-18: random decoders shake weights that are good already. The
    # last layer: under Adam its rate is all that tells literal sums from sums of u / n².
    train = config.train
    parts = [(segmenter.encoder, train.encoder_rate, train.frozen_share), (segmenter.head, train.head_rate, 0.0)]
    groups = [
        {"params": list(part.parameters()), "factor": factor, "frozen_share": frozen_share}
        for part, factor, frozen_share in parts
        if factor != 1 or frozen_share
    ]
    apart = {p for group in groups for p in group["params"]}
    groups.insert(0, {"params": [p for p in segmenter.parameters() if p not in apart], "factor": 1.0})
    optimizer = torch.optim.Adam(groups, train.learning_rate, fused=fused)
    if discriminator is None:
        return optimizer, None
    # beta1 = 0 is usual for games: a mean of past gradients would be about maps that are not made any more.
    game = config.adversarial
    betas = game.beta1, game.beta2
    return optimizer, torch.optim.Adam(discriminator.parameters(), game.learning_rate, betas, fused=fused)


def set_rates(optimizer, step, steps, train):
    """Give the segmenter's parts their shares of this step's learning rate, 0 while frozen; -> the rate."""
    rate = learning_rate(step, steps, train)
    for group in optimizer.param_groups:
        frozen = step < group.get("frozen_share", 0) * steps
        group["lr"] = 0.0 if frozen else group["factor"] * rate
    return rate


def update_segmenter(task, run, step, micro_batches, segmenter, optimizer, discriminator=None):
    """The segmenter's step on the total objective: Eq. 1 + weight * the hinge loss of the maps that it makes (Eq. 2).

    Names: "made" are label maps that the segmenter predicts, "real" are exemplars.
    returns: the maps of each micro-batch, without gradient; norms of both terms' gradients, on steps with a record
    """
    ranks, scaler, adversarial = task.ranks, task.scaler, task.config.adversarial
    # Both terms are means over the global batch, Eq. 1 over its labels, the hinge over its tiles. Each micro-batch adds
    # its share of them. DDP averages gradients over ranks, so each backward multiplies by their number.
    # Eq. 1's N is the count of labels in the global batch, known before the first backward: where regions lack labels,
    # a mean of micro-batch means is not the batch mean.
    count = torch.full((), float(sum(b["count"] for b in micro_batches)), device=ranks.device)
    label_count = ranks.sum(count).clamp(min=1)  # 1: a batch without a label costs 0, and not NaN
    # A young segmenter's maps are noise, and so is what a discriminator says of them: its weight may rise from 0.
    weight = adversarial.weight * min(1.0, (step + 1) / (adversarial.warmup_steps + 1))
    made_maps, probes = [], {}
    for i, batch in enumerate(micro_batches):
        last = i == len(micro_batches) - 1
        with ranks.synchronise(segmenter, last):  # gradients travel once a step
            images = normalize(batch["image"], task.mean, task.std, batch["color"])
            images = images.contiguous(memory_format=task.memory_format)
            with task.autocast:
                logits = segmenter(images)
            logits = logits.to(images.dtype)  # losses are float32: 900 logits of 80 overflow float16
            loss, _, _ = segmenter_loss(task, logits, batch)
            terms = {"loss": loss / label_count}
            if discriminator is not None:
                # Frozen, and called without DDP: no gradient of its own is to be summed.
                discriminator.requires_grad_(False)
                made = made_map(logits, adversarial.temperature, adversarial.maps)
                # A prediction gets its exemplar's holes: a hole must not tell which is which.
                seen = appearance(made, batch["exemplars"], task.classes, adversarial.blur_sigma)
                with task.autocast:
                    made_scores = discriminator(seen)
                share = len(images) / task.config.train.batch_size  # of a micro-batch in a mean over the global batch
                terms["segmenter_hinge"] = share * segmenter_hinge(made_scores.to(images.dtype))
                made_maps.append(made.detach())  # the discriminator's move is about the same maps
                if last and run.logs(step):
                    probes = probe_game(logits, terms["loss"], terms["segmenter_hinge"], weight)
            total = terms["loss"] + weight * terms.get("segmenter_hinge", 0.0)
            scaler.scale(total * ranks.world).backward()
        run.add(**terms)
    scaler.step(optimizer)  # passes over a step whose float16 gradients are not finite
    scaler.update()
    optimizer.zero_grad()
    return made_maps, probes


def update_discriminator(task, run, micro_batches, made_maps, discriminator, optimizer):
    """The discriminator's step: tell the maps that were made from exemplars (Eq. 2)."""
    ranks, scaler, adversarial = task.ranks, task.scaler, task.config.adversarial
    discriminator.requires_grad_(True)  # the segmenter's step froze it
    for i, (made, batch) in enumerate(zip(made_maps, micro_batches, strict=True)):
        share = len(made) / task.config.train.batch_size
        real = batch["exemplars"]
        pair = real.to(made.dtype), made
        # Real and made maps share one forward: DDP allows one for each backward.
        maps = torch.cat([appearance(m, real, task.classes, adversarial.blur_sigma) for m in pair])
        with ranks.synchronise(discriminator, i == len(micro_batches) - 1):
            with task.autocast:
                real_scores, made_scores = discriminator(maps).to(maps.dtype).chunk(2)
            loss = share * discriminator_hinge(real_scores, made_scores)
            scaler.scale(loss * ranks.world).backward()
        run.add(discriminator_hinge=loss, real_score=share * real_scores.mean(), made_score=share * made_scores.mean())
    scaler.step(optimizer)
    scaler.update()
    optimizer.zero_grad()


def segmenter_loss(task, logits, batch):
    """-> Eq. 1 summed over a micro-batch's labels; the predictions for these labels, per pixel (Low, High) or per
    region (Sec. 4.3); and the labels as merged classes."""
    if task.observed:  # beyond the paper: the misfit between a cell's composition and its label
        return task.observed.judge(logits, batch)
    labels = batch["labels"]
    if "region_index" in batch:
        how = task.config.supervision.aggregate
        logits = aggregate(logits, batch["region_index"], labels.shape[1], task.cell_px, how)
    return cross_entropy_sum(logits, labels), logits, labels


@torch.no_grad()
def validate(task, segmenter, batches):
    """Scores on the kind of labels used for training: pixel predictions on pixel labels, or regions on region labels.

    returns: metrics.selection_scores; classes: how many occur in the labels; likelihood: exp of minus the mean loss
             per label, which for Eq. 1 is the geometric mean of the labels' probabilities
    """
    segmenter.eval()  # batch norm by its running statistics
    ranks, classes = task.ranks, task.classes
    # Counts add up over batches and ranks, as a mean of mIoUs would not.
    confusion = torch.zeros(classes, classes, dtype=torch.int64, device=ranks.device)
    total = torch.zeros((), device=ranks.device)
    for batch in batches:
        batch = to_device(batch, ranks.device)
        images = normalize(batch["image"], task.mean, task.std)
        with task.autocast:
            logits = segmenter(images)
        logits = logits.to(images.dtype)
        loss, predicted, labels = segmenter_loss(task, logits, batch)
        total += loss
        confusion += confusion_matrix(predicted.argmax(dim=1), labels, classes)
    confusion, total = ranks.sum(confusion), ranks.sum(total)
    held = int((confusion.sum(dim=1) > 0).sum())
    likelihood = math.exp(-total.item() / confusion.sum().item())
    return {"classes": held, **selection_scores(confusion), "likelihood": likelihood}


if __name__ == "__main__":
    command.run(lambda: main(from_command_line(SegmenterConfig, __doc__)), distributed.stop)
