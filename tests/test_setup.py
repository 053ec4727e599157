"""pyproject.toml, requirements.lock and environment.yml say the same."""

import ast
import re
import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]
CORE, LAB, CLUSTER, EXPORT, DEV = (
    [Requirement(line) for line in lines]
    for lines in (PROJECT["dependencies"], *(EXTRAS[name] for name in ("lab", "cluster", "export", "dev")))
)
LOCK = (ROOT / "requirements.lock").read_text()
ENVIRONMENT = (ROOT / "environment.yml").read_text()
SUPPORTED = ("3.11", "3.12", "3.13")


def pins(python: str) -> dict[str, str]:
    """Distribution -> version that the lock installs on Linux with this Python."""
    found = {}
    for line in LOCK.splitlines():
        if line and not line.lstrip().startswith("#"):
            requirement = Requirement(line)
            (pin,) = requirement.specifier
            assert pin.operator == "==", line
            marker = requirement.marker
            on = {"python_version": python, "python_full_version": f"{python}.0", "sys_platform": "linux"}
            if marker is None or marker.evaluate(on):
                assert canonicalize_name(requirement.name) not in found, line
                found[canonicalize_name(requirement.name)] = pin.version
    return found


def imports(path: Path) -> set[str]:
    """Top-level names that a module imports, at its head or inside a function."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            found.add(node.module.partition(".")[0])
    return found


@pytest.mark.parametrize("python", SUPPORTED)
@pytest.mark.parametrize("requirement", CORE + LAB + CLUSTER + EXPORT + DEV, ids=lambda requirement: requirement.name)
def test_every_dependency_is_locked_inside_its_range(requirement: Requirement, python: str) -> None:
    assert requirement.specifier.contains(pins(python)[canonicalize_name(requirement.name)])


def test_no_host_and_no_path_stands_in_the_lock() -> None:
    assert not re.search(r"://|@|--|/[a-z]+/", LOCK)
    assert "make lock" in LOCK.splitlines()[1]


def test_conda_users_get_the_project_and_its_lock_and_nothing_else() -> None:
    environment = yaml.safe_load(ENVIRONMENT)
    assert environment["channels"] == ["conda-forge", "nodefaults"]
    python, pip, from_pip = environment["dependencies"]
    assert (pip, from_pip) == ("pip", {"pip": ["-r requirements.lock", "-e ."]})
    assert SpecifierSet(python.removeprefix("python ")) == SpecifierSet(PROJECT["requires-python"])


def test_the_supported_pythons_are_the_promised_ones() -> None:
    range_ = SpecifierSet(PROJECT["requires-python"])
    assert [minor for minor in range(8, 20) if range_.contains(f"3.{minor}")] == [11, 12, 13]
    assert sys.version_info[:2] in [(3, int(python.partition(".")[2])) for python in SUPPORTED]


def test_environment_yml_says_why_it_is_decord2() -> None:
    assert re.search(r"# decord2, not decord: .*2021.*fork.*imports\s+as\s+decord", ENVIRONMENT.replace("\n", " "))


def test_there_is_one_opencv() -> None:
    assert [name for name in pins("3.11") if name.startswith("opencv")] == ["opencv-python-headless"]


@pytest.mark.parametrize(("package", "dependencies"), [("ifttn", CORE + CLUSTER + EXPORT), ("lab", CORE + LAB)])
def test_every_import_is_a_declared_dependency(package: str, dependencies: list[Requirement]) -> None:
    distributions = packages_distributions()
    declared = {canonicalize_name(requirement.name) for requirement in dependencies}
    modules = sorted((ROOT / package).rglob("*.py"))
    assert modules
    for path in modules:
        for name in imports(path) - set(sys.stdlib_module_names) - {"ifttn", "lab"}:
            found = {canonicalize_name(distribution) for distribution in distributions.get(name, [])}
            assert found & declared, f"{path.relative_to(ROOT)} imports {name}, which {package} does not declare"


def test_make_alone_lists_every_target_with_a_line() -> None:
    # Without the variables of a make that runs this test.
    listed = subprocess.run(
        ["make", "-C", ROOT], env={"PATH": "/usr/bin:/bin"}, capture_output=True, text=True, check=True
    )
    for target in ("setup", "test", "test-all", "browser", "reproduce", "lab", "lock", "clean"):
        assert re.search(rf"^  make {target} +\w+.*$", listed.stdout, re.MULTILINE), listed.stdout
