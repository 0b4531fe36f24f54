"""An observation model (beyond/observation.py) as plain values, in checkpoints, and in YAML that a person may give.

A row of the YAML is a native code or a whole class, by its name, and holds its part of W and b.
"""

import torch
import yaml

from beyond.observation import Observation, fit
from runtime.errors import naming, require
from runtime.files import read_yaml
from runtime.labels import IGNORE

MIN_CELLS = 10  # of a code that is to have a row of its own [ours]
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
    merged = merged if native else {c: c for c in range(len(class_names))}
    known = {code: to for code, to in sorted(merged.items()) if to != IGNORE}
    cells = {code: int((codes == code).sum()) for code in known}
    rows = {code: to for code, to in known.items() if native and cells[code] >= MIN_CELLS}
    for c, name in enumerate(class_names):
        if c not in rows.values():
            rows[name] = c
    place = {name: k for k, name in enumerate(rows)}
    labels = torch.full_like(codes, -1)
    for code, to in known.items():  # cells of rare codes stand for their class, where it has a row
        labels[codes == code] = place.get(code, place.get(class_names[to], -1))
    kept = labels >= 0
    model = fit(shares[kept], labels[kept], list(rows), list(rows.values()))
    counts = torch.bincount(labels[kept], minlength=len(rows)).tolist()
    rare = {code: cells[code] for code in known if native and code not in rows}
    return model, dict(zip(rows, counts, strict=True)), rare


def to_plain(model, class_names, cells=None):
    """Observation -> {"classes": names, "rows": {code or class name: {class, cells, bias, log, linear}}}."""
    rows = {}
    for name, to, weight, bias in zip(model.names, model.classes, model.weight, model.bias, strict=True):
        values = [round(value, 6) for value in weight.tolist()]
        log, linear = values[: model.num_classes], values[model.num_classes :]
        rows[name] = {"class": class_names[to], "cells": (cells or {}).get(name, 0), "bias": round(bias.item(), 6)}
        rows[name].update(log=log, linear=linear)
    return {"classes": list(class_names), "rows": rows}


def table_to_yaml(plain):
    return HEAD + yaml.safe_dump(plain, sort_keys=False, default_flow_style=None, width=120)


def from_yaml(path, class_names):
    """raises: Refused"""
    return from_plain(read_yaml(path), class_names, path)


def from_plain(plain, class_names, where):
    """{"classes", "rows"} -> Observation. raises: Refused, opened by `where`, for what is none over these classes"""
    names = list(class_names)
    with naming(where, "should hold `classes: [names]` and `rows: {code: {class, bias, log, linear}}`: "):
        require(plain["classes"] == names, f"{where}: classes are {plain['classes']!s:.200}; the tile set has {names}")
        rows = plain["rows"]
        if unknown := [name for name in rows if type(name) is not int and name not in names]:
            raise ValueError(f"row {unknown[0]!r} is neither a code nor one of the classes")
        classes = [names.index(row["class"]) for row in rows.values()]
        if lacking := [name for c, name in enumerate(names) if c not in classes]:
            raise ValueError(f"no row is of the class {lacking[0]}")
        log, linear, bias = (
            torch.tensor([row[key] for row in rows.values()], dtype=torch.float64) for key in ("log", "linear", "bias")
        )
        fits = log.shape == linear.shape == (len(rows), len(names)) and bias.shape == (len(rows),)
        if not fits or not torch.cat([log, linear, bias[:, None]], dim=1).isfinite().all():
            raise ValueError(f"log and linear are {len(names)} numbers, one a class, and bias is one number")
        return Observation(list(rows), classes, torch.cat([log, linear], dim=1), bias)
