"""Lower bounds, the locked versions, and how make chooses between them."""

import os
import re
import subprocess

import pytest
from commands import ROOT
from packaging.requirements import Requirement  # pytest brings it


def requirements(name):
    lines = [line.split("#")[0].strip() for line in (ROOT / name).read_text().splitlines()]
    return [Requirement(line) for line in lines if line and not line.startswith("-r")]


@pytest.mark.parametrize("name", ["requirements.txt", "requirements-export.txt", "requirements-dev.txt"])
def test_every_package_has_a_lower_bound_and_a_locked_version_that_it_allows(name):
    locked = {r.name: r.specifier for r in requirements("constraints.txt")}
    for package in requirements(name):
        assert [bound.operator for bound in package.specifier] == [">="], package
        (version,) = locked[package.name]
        assert version.operator == "==" and package.specifier.contains(version.version), package


def test_make_installs_the_locked_versions_where_asked_and_the_newest_else():
    of_make = {"MAKEFLAGS", "MAKEOVERRIDES", "MAKELEVEL", "VENV", "LOCKED"}  # what `make test` hands down
    environment = {name: value for name, value in os.environ.items() if name not in of_make}
    how = {"cwd": ROOT, "capture_output": True, "text": True, "check": True, "env": environment}
    for goal, name in (("demo", "requirements.txt"), ("test", "requirements-dev.txt")):
        locked, newest, elsewhere = (subprocess.run(["make", "--dry-run", "--always-make", *words, goal], **how).stdout
                                     for words in (["LOCKED=1"], [], ["LOCKED=1", "VENV=elsewhere"]))  # fmt: skip
        assert re.search(rf"pip install .*-c constraints.txt -r {name}", locked) and "constraints" not in newest
        assert re.search(r"touch .venv/\S+-locked$", locked, re.MULTILINE) and "-locked" not in newest
        assert "pip" not in elsewhere
