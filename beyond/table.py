"""An observation model (beyond/observation.py) as plain values, in checkpoints, and in YAML that a person may give.

A row of the YAML is a native code or a whole class, by its name, and holds its part of W and b. A table from elsewhere
serves where no exemplar place has a coarse map, as configs/tables/nlcd_observation.yaml.
"""

import torch
import yaml

from beyond.observation import Observation, fit
from runtime.errors import Refused
from runtime.files import read_yaml
from runtime.labels import IGNORE

MIN_CELLS = 10  # of a code that is to have a row of its own [ours]
MAX_ROWS = 200  # with the classes behind them, labels below 255
HEAD = """# p(code | composition m of its cell) = softmax over rows of log . log(m + 0.02) + linear . 4 m + bias, m
# being shares of the classes below (beyond/observation.py); cells: how many the row was fitted on.
"""


def fit_codes(shares, codes, merged, class_names, native=True):
    """Fit the model on the cells of exemplar places.

    A code that stands there in fewer than MIN_CELLS cells has no row: it says no more than its merged class. A class
    none of whose codes has a row has one itself.

    shares:  (N, C) float64; codes: (N,) int64, those of `merged` where native, else classes
    merged:  {native code: class or 255}
    native:  whether codes are to be told apart; else rows are classes
    returns: Observation, {row name: cells}, {code: cells} of the codes without a row
    """
    shares, codes = torch.as_tensor(shares), torch.as_tensor(codes)
    known = {code: to for code, to in sorted(merged.items()) if to != IGNORE}
    found = dict(zip(*(v.tolist() for v in codes.unique(return_counts=True)), strict=True))
    kept = [code for code in known if found.get(code, 0) >= MIN_CELLS] if native else []
    names, classes = list(kept), [known[code] for code in kept]
    for c, name in enumerate(class_names):
        if c not in classes:
            names.append(name)
            classes.append(c)
    place = {name: k for k, name in enumerate(names)}
    rows = {c: c for c in range(len(class_names))}
    if native:  # cells of rare codes stand for their class, where it has a row
        rows = {code: place.get(code, place.get(class_names[to], -1)) for code, to in known.items()}
    labels = torch.full_like(codes, -1)
    for code, row in rows.items():
        labels[codes == code] = row
    model = fit(shares[labels >= 0], labels[labels >= 0], names, classes)
    cells = torch.bincount(labels[labels >= 0], minlength=len(names)).tolist()
    rare = {code: found.get(code, 0) for code in known if code not in kept} if native else {}
    return model, dict(zip(names, cells, strict=True)), rare


def to_plain(model, class_names, cells=None):
    """Observation -> {"classes": names, "rows": {code or class name: {class, cells, bias, log, linear}}}."""
    weight, bias, count = model.weight.double(), model.bias.double(), model.num_classes
    rows = {}
    for k, name in enumerate(model.names):
        log, linear = ([round(v, 6) for v in part.tolist()] for part in (weight[k, :count], weight[k, count:]))
        rows[name] = {"class": class_names[model.classes[k]], "cells": (cells or {}).get(name, 0)}
        rows[name].update(bias=round(bias[k].item(), 6), log=log, linear=linear)
    return {"classes": list(class_names), "rows": rows}


def to_yaml(plain):
    lines = []
    for name, row in plain["rows"].items():
        log, linear = (", ".join(f"{value:7.4f}" for value in row[part]) for part in ("log", "linear"))
        start = f"{name}: {{class: {row['class']}, cells: {row['cells']}, bias: {row['bias']:.4f},"
        lines.append(f"  {start}\n    log: [{log}], linear: [{linear}]}}")
    names = yaml.safe_dump(plain["classes"], default_flow_style=True, width=1000).strip()
    return f"{HEAD}classes: {names}\nrows:\n" + "\n".join(lines) + "\n"


def from_yaml(path, class_names):
    """raises: Refused"""
    return from_plain(read_yaml(path, "cannot be read as YAML"), class_names, path)


def from_plain(plain, class_names, where):
    """{"classes", "rows"} -> Observation, everything checked; `where` opens every error."""
    classes, rows = (plain.get("classes"), plain.get("rows")) if isinstance(plain, dict) else (None, None)
    if not isinstance(rows, dict) or not 0 < len(rows) <= MAX_ROWS:
        raise Refused(f"{where}: should hold `classes: [names]` and `rows: {{code: {{class, ...}}}}`")
    if classes != list(class_names):
        raise Refused(f"{where}: classes are {str(classes):.200}; the tile set has {', '.join(class_names)}")
    weights, biases, own = [], [], []
    for name, row in rows.items():
        here = f"{where}: row {name!r:.40}"
        if type(name) is not int and name not in class_names:
            raise Refused(f"{here}: is neither a code nor one of the classes {', '.join(class_names)}")
        if not isinstance(row, dict) or row.get("class") not in class_names:
            raise Refused(f"{here}: needs the class it is merged to, one of {', '.join(class_names)}")
        own.append(list(class_names).index(row["class"]))
        log, linear, bias = (row.get(key) for key in ("log", "linear", "bias"))
        for key, values in (("log", log), ("linear", linear), ("bias", [bias] * len(class_names))):
            numbers = isinstance(values, list) and all(type(v) in (int, float) and abs(v) <= 1e4 for v in values)
            if not numbers or len(values) != len(class_names):
                needs = "a number" if key == "bias" else f"{len(class_names)} numbers, one a class"
                raise Refused(f"{here}: {key} is {str(row.get(key)):.80}; it should be {needs}")
        weights.append([*map(float, log), *map(float, linear)])
        biases.append(float(bias))
    if lacking := [name for c, name in enumerate(class_names) if c not in own]:
        raise Refused(f"{where}: no row is of the class {lacking[0]}; each class needs one")
    return Observation(list(rows), own, torch.tensor(weights).double(), torch.tensor(biases).double())
