"""GeoKeys as other programs write them, for made-up files."""

ALBERS = [(1024, 1), (1025, 1), (2048, 4269), (3072, 32767), (3074, 32767), (3075, 11), (3076, 9001)]
SCALE_AND_TIE = [(33550, "d", 3, (2.0, 3.0, 0.0), True), (33922, "d", 6, (0, 0, 0, 5e5, 4.4e6, 0), True)]
PARAMETERS = {3078: 29.5, 3079: 45.5, 3081: 23.0, 3080: -96.0, 3082: 0.0, 3083: 0.0}


def tags(short=(), doubles=None, texts=None):
    """GeoKeys as extratags of tifffile."""
    doubles, texts, values, packed, written = doubles or {}, texts or {}, [], [], ""
    for key, value in short:
        values += [key, 0, 1, value]
    for key, value in doubles.items():
        values += [key, 34736, 1, len(packed)]
        packed.append(value)
    for key, text in texts.items():
        values += [key, 34737, len(text) + 1, len(written)]
        written += f"{text}|"
    made = [(34735, "H", len(values) + 4, (1, 1, 0, len(values) // 4, *values), True)]
    made += [(34736, "d", len(packed), tuple(packed), True)] if packed else []
    return made + ([(34737, "s", 0, written, True)] if written else [])


def albers(changes=(), name="Albers", short=()):
    return tags([*ALBERS, *short], {**PARAMETERS, **dict(changes)}, {1026: name, 2049: "NAD83"})
