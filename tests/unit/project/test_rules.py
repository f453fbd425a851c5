"""Rules about the code itself: who imports whom, how large things are, what is never called, what is never committed."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
import tomllib
from collections import Counter
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

from ratchet.config import schema
from tests.unit.project.source_tree import PACKAGES, ROOT, calls, circles, files, functions, imported_files, imports, modules

MAY_IMPORT = {
    "ratchet": {"ratchet"},
    "engines": {"engines", "ratchet"},
    "gateway": {"gateway", "engines", "ratchet"},
    "learner": {"learner", "engines", "ratchet"},
}
ONLY_IN = {
    "fastapi": ("gateway/",),
    "starlette": ("gateway/",),
    "torch": ("learner/",),
    "redis": ("ratchet/buffer/",),
    "transformers": ("learner/policy/model.py", "learner/policy/smollm2.py"),
    "peft": ("learner/policy/model.py",),
}
NEVER_IMPORTED = {"pickle", "cPickle", "dill", "shelve", "marshal"}
NEVER_CALLED = re.compile(r"(eval|exec|compile|torch\.load|os\.system|os\.popen|(\w+\.)*pickle\.\w+)")
STUBS = re.compile(r"\b(TODO|FIXME|XXX|NotImplementedError)\b")
LONGEST_FILE = 400
LONGEST_FUNCTION = 60
LARGEST_FOLDER = 14
"""Python files in one folder of product code, `__init__.py` included."""
WEBSITES = (
    "github.com|apache.org|openai.com|arxiv.org|python.org|keepachangelog.com|contributor-covenant.org|huggingface.co|schema.org|w3.org"
)
ELSEWHERE = re.compile(rf"https?://(?!(?:www\.|\w+\.)?(?:{WEBSITES})\b)(?:[\w-]+\.)+(?:com|org|net|io|dev|cloud|internal)\b")
MACHINE = re.compile(r"(?<![\w.])/(?:work|root|home/\w+|opt/\w+|tmp/w)(?:/|\b)|files\.pythonhosted|download\.pytorch|pypi\.(?:org|python)")


@pytest.mark.parametrize("package", PACKAGES)
def test_each_package_imports_only_what_its_place_allows(package: str) -> None:
    ours = {(path, name.split(".")[0]) for path in modules(package) for name in imports(path)}
    assert not {(str(path), name) for path, name in ours if name in PACKAGES and name not in MAY_IMPORT[package]}


@pytest.mark.parametrize("library", ONLY_IN)
def test_a_library_is_imported_only_in_its_room(library: str) -> None:
    users = {str(path) for path in modules(*PACKAGES) if any(name.split(".")[0] == library for name in imports(path))}
    assert not {path for path in users if not path.startswith(ONLY_IN[library])}


def test_no_file_imports_itself_by_way_of_others() -> None:
    assert not circles({path: imported_files(path) for path in modules(*PACKAGES)})


def test_a_circle_is_found_through_any_number_of_files() -> None:
    a, b, c, d = (Path(f"{name}.py") for name in "abcd")
    assert circles({a: [b], b: [c], c: [a, d], d: []}) == [[a, b, c]]
    assert circles({a: [a]}) == [[a]]
    assert circles({a: [b, c], b: [d], c: [d], d: []}) == []


def test_every_library_that_is_imported_is_declared() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lists = [project["dependencies"], *project["optional-dependencies"].values()]
    declared = {re.split(r"[\[>=<; ]", line)[0].lower() for lines in lists for line in lines}
    ours = {*PACKAGES, "tests", "bench"}
    places = packages_distributions()
    # Client suites and other gateways run in environments of their own.
    files = [path for path in modules(*PACKAGES, "tests", "bench") if path.parts[:2] not in {("tests", "clients"), ("bench", "peers")}]
    named = {(str(path), name.split(".")[0]) for path in files for name in imports(path)}
    foreign = {(path, name) for path, name in named if name not in ours and name not in sys.stdlib_module_names}
    assert not {
        (path, name) for path, name in foreign if not declared & {dist.lower().replace("_", "-") for dist in places.get(name, [name])}
    }


def test_no_code_that_runs_data_is_imported_or_called() -> None:
    everywhere = modules(*PACKAGES, "tests", "bench", "docs")
    assert not [(str(p), n) for p in everywhere for n in imports(p) if n.split(".")[0] in NEVER_IMPORTED]
    assert not [(str(p), n, c.lineno) for p in everywhere for n, c in calls(p) if NEVER_CALLED.fullmatch(n)]


def test_no_call_trusts_remote_code() -> None:
    def trusts(call: ast.Call) -> bool:
        return any(
            k.arg == "trust_remote_code" and not (isinstance(k.value, ast.Constant) and k.value.value is False) for k in call.keywords
        )

    assert not [(str(path), call.lineno) for path in modules(*PACKAGES, "tests", "bench") for _, call in calls(path) if trusts(call)]


def test_tests_do_not_sleep_for_a_fixed_time() -> None:
    assert not [(str(path), call.lineno) for path in modules("tests") for name, call in calls(path) if name == "time.sleep"]


def test_nothing_is_left_as_a_stub_or_switched_off() -> None:
    here = Path(__file__).relative_to(ROOT)
    assert not [str(path) for path in modules(*PACKAGES, "tests", "bench") if path != here and STUBS.search((ROOT / path).read_text())]
    switched_off = {"pytest.skip", "pytest.xfail", "pytest.mark.skip", "pytest.mark.skipif", "pytest.mark.xfail", "pytest.importorskip"}
    assert not [(str(path), call.lineno) for path in modules("tests") for name, call in calls(path) if name in switched_off]


def test_files_and_functions_stay_small() -> None:
    lengths = {str(path): len((ROOT / path).read_text().splitlines()) for path in modules(*PACKAGES, "tests", "bench", "docs")}
    assert not {path: lines for path, lines in lengths.items() if lines > LONGEST_FILE}
    found = [(str(path), name, lines) for path in modules(*PACKAGES, "tests", "bench") for name, lines in functions(path)]
    assert not [function for function in found if function[2] > LONGEST_FUNCTION]


def test_folders_stay_small() -> None:
    folders = Counter(path.parent for path in modules(*PACKAGES))
    assert not {str(folder): count for folder, count in folders.items() if count > LARGEST_FOLDER}


def test_no_committed_file_names_this_machine_or_a_registry() -> None:
    here = Path(__file__).relative_to(ROOT)
    texts = {path: (ROOT / path).read_text(encoding="utf-8", errors="replace") for path in files() if path != here}
    assert not [(str(path), found) for path, text in texts.items() for found in MACHINE.findall(text)]
    locks = {path: text for path, text in texts.items() if path.parts[0] in ("requirements", "Makefile", ".ci")}
    assert not [(str(path), found) for path, text in locks.items() for found in ELSEWHERE.findall(text)]


def test_the_gateway_brings_no_torch_and_every_package_is_ours() -> None:
    program = (
        "import gateway.app, ratchet, engines, learner, json, sys; m = sys.modules; "
        "print(json.dumps([sorted(m), *(m[n].__file__ for n in sys.argv[1:])]))"
    )
    done = subprocess.run([sys.executable, "-P", "-c", program, *PACKAGES], capture_output=True, text=True, check=True)
    loaded, *places = json.loads(done.stdout)
    assert not {name.split(".")[0] for name in loaded} & {"torch", "transformers", "peft", "vllm"}
    assert [Path(place) for place in places] == [ROOT / package / "__init__.py" for package in PACKAGES]


def test_every_locked_package_has_a_hash_and_the_left_out_ones_are_absent() -> None:
    for lock in (ROOT / "requirements").rglob("*.lock"):
        blocks = re.split(r"\n(?=\S)", lock.read_text().strip())
        assert all("==" in block and "--hash=sha256:" in block for block in blocks), lock.name
        named = {re.split(r"[=\[ ]", block)[0] for block in blocks}
        assert not named & {"torchvision", "torchaudio", "torchcodec", "llama-cpp-python"}, lock.name
        assert "llm" not in named or lock.name == "llm.lock"
    assert "torch==" not in (ROOT / "requirements" / "cpu.lock").read_text()


def test_the_pages_made_from_the_code_are_current() -> None:
    done = subprocess.run([sys.executable, str(ROOT / "docs" / "generate.py"), "--check"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_every_key_of_the_configuration_says_what_it_is() -> None:
    described = schema()
    sections = [described, *described["$defs"].values()]
    silent = [(s["title"], key) for s in sections for key, field in s["properties"].items() if "description" not in field]
    assert not silent


def test_the_index_of_the_documentation_names_every_page() -> None:
    index = (ROOT / "docs" / "README.md").read_text()
    pages = {path.name for path in files(".md") if path.parts[0] == "docs" and path.name != "README.md"}
    assert not [page for page in pages if f"({page})" not in index]
    linked = {(page, target) for page in files(".md") for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", (ROOT / page).read_text())}
    assert not [(str(page), target) for page, target in linked if not (ROOT / page.parent / target).exists()]
