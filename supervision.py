"""What a run of train_seg.py learns from: tiles, the labels that supervise them, and label maps from elsewhere."""

from dataclasses import dataclass
from pathlib import Path

from data.manifest import Description
from data.samples import Exemplars, ScoringTiles, TrainingTiles
from data.tiles import TileSet
from models.observation import Observation
from models.observation_table import fit_codes, from_plain, from_yaml, to_plain


@dataclass(frozen=True)
class Supervision:
    """train, validation: samples of both splits; watched: those of validation, each beside an exemplar

    observation: what coarse labels say of their cells, of rows that are trained by it; table: the same in plain values;
                 origin: a line on where it is from; else None
    """

    description: Description
    train: TrainingTiles
    validation: ScoringTiles
    watched: ScoringTiles
    observation: Observation | None
    table: dict | None
    origin: str | None


def open_supervision(config, saved):
    """config: config.SegmenterConfig; saved: the checkpoint that a run goes on from, or None -> Supervision."""
    kind, min_coverage = config.supervision.labels, config.supervision.min_coverage
    places, needs = (config.data.regions, config.data.exclude_regions), ("high" if kind == "high" else "low",)
    training, validation = (TileSet(config.data.root, split, *places, needs) for split in ("train", "validation"))
    description = training.described()
    exemplars = label_maps(config, description, saved)
    observation, table, origin = observation_model(config, description, exemplars, saved)
    if observation:  # beyond the paper: cells carry its labels from here on
        for tiles in (training, validation):
            tiles.read_low_as(*observation.labels(tiles.description.taxonomy.low))
    exemplars = exemplars if config.adversarial.weight else None
    train = TrainingTiles(
        training,
        kind,
        min_coverage,
        batch_size=config.train.batch_size,
        seed=config.run.seed,
        dihedral=config.data.dihedral,
        gain=config.data.gain,
        offset=config.data.offset,
        exemplars=exemplars,
        exemplar_steps=config.adversarial.steps,
    )
    scoring = (ScoringTiles(validation, kind, min_coverage, shown) for shown in (None, exemplars))
    return Supervision(description, train, *scoring, observation, table, origin)


def label_maps(config, description, saved):
    """The Exemplars that the discriminator is shown, or that an observation model is fitted to; None without either."""
    supervision, adversarial = config.supervision, config.adversarial
    fits = supervision.aggregate == "observation" and not supervision.observation and saved is None
    if not adversarial.weight and not fits:
        return None
    root = Path(adversarial.exemplar_root or config.data.root)
    own = root.resolve() == Path(config.data.root).resolve()  # regions are names of this tile set
    regions = (config.data.regions, config.data.exclude_regions) if own else ((), ())
    shuffle_px = round(description.scale) if adversarial.control == "shuffled" else 0
    return Exemplars(root, description, adversarial.exemplars, config.run.seed, *regions, shuffle_px=shuffle_px)


def observation_model(config, description, exemplars, saved):
    """The model of supervision.aggregate=observation: the run's own, that of a file, or one fitted to exemplar places.

    returns: models.observation.Observation, its table in plain values, and a line that says where it is from and which
             codes count as their merged class; or three times None
    """
    if config.supervision.aggregate != "observation":
        return None, None, None
    names, given = list(description.taxonomy.names), config.supervision.observation
    if saved is not None:
        table, origin = saved.get("observation"), "as in the checkpoint"
        model = from_plain(table, names, Path(config.run.dir) / "last.pt")
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
