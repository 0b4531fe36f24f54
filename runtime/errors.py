"""What a user can mend: one exception of one line."""

import contextlib
import difflib


class Refused(Exception):
    """One line that names the file or the setting and, where there is one, the nearest valid value; exit status 2."""


class DiskFull(Refused):
    """A file that cannot be written; the next one could not be either."""


def require(holds, message):
    if not holds:
        raise Refused(message)


@contextlib.contextmanager
def naming(where, blame="", kind=Refused):
    """Whatever a library raises around a file becomes one line: `where`, then the reason, with `blame` before one that
    is not the system's own. Around files only: elsewhere it would hide bugs."""
    try:
        yield
    except Refused:
        raise
    except Exception as error:
        raise kind(f"{where}: {'' if isinstance(error, OSError) else blame}{reason(error)}") from error


def reason(error):
    """What an exception says, on one line."""
    text = getattr(error, "strerror", None) or str(error)
    if "See previous exception" in text:  # rasterio's way
        text = str(error.__cause__ or error)
    text = text or type(error).__name__
    return " ".join(text.split())[:200]


def nearest(word, known):
    """The word of `known` that is most like this one, for "did you mean"."""
    alike = {str(each).lower(): each for each in reversed(list(known))}
    return alike[difflib.get_close_matches(str(word)[:80].lower(), alike, 1, 0)[0]]
